//! The files of a zip, one after another.
//!
//! A zip's directory stands at its end, so the whole of it goes to an unnamed temporary file first, bounded by `spool_bytes`. Every entry
//! is looked at before the first one is read: all that can be wrong with a zip but its compressed data is found there.

use std::collections::HashSet;
use std::fmt::Display;
use std::io::BufReader;
use std::rc::Rc;
use std::vec;

use flate2::bufread::DeflateDecoder;
use rawzip::{
    CompressionMethod, ErrorKind, MAX_CENTRAL_DIRECTORY_RECORD_SIZE, RangeReader, ZipArchive,
    ZipArchiveEntryWayfinder, ZipFileHeaderRecord, ZipLocator,
};

use super::layer::{BUFFER_BYTES, Layer, Meter, Unpacked};
use super::spool::Spool;
use super::{name, unsupported};
use crate::feed::limits::Limits;
use crate::feed::reject::{ConvertError, Reason, Rejection, excerpt};

/// Names that archivers of desktops add beside what was meant to be sent.
const LITTER: [&[u8]; 2] = [b".DS_Store", b"Thumbs.db"];

/// The part of every Office file (ECMA-376, part 2, section 7.2.3). Its other parts are XML, but none of it is a feed.
const OFFICE_PART: &[u8] = b"[Content_Types].xml";

type Archive = ZipArchive<Rc<Spool>>;

/// A zip, open, its files in the order of the directory.
pub struct Zip {
    archive: Archive,
    files: vec::IntoIter<ZipFile>,
}

struct ZipFile {
    /// For messages alone.
    name: String,
    wayfinder: ZipArchiveEntryWayfinder,
    method: CompressionMethod,
}

/// One file of a zip.
pub struct Entry<'r> {
    pub name: String,
    pub content: Layer<'r>,
}

impl Zip {
    pub fn open(input: Layer<'_>, limits: &Limits) -> Result<Self, ConvertError> {
        let spool = Spool::fill(input, limits.spool_bytes)?;
        let bytes = spool.len();
        let mut buffer = vec![0; MAX_CENTRAL_DIRECTORY_RECORD_SIZE];
        let archive = ZipLocator::new()
            .locate_in_reader(Rc::new(spool), &mut buffer, bytes)
            .map_err(|(_, error)| refuse(error))?;
        if archive.end_offset() != bytes {
            return Err(corrupt("something follows the archive").into());
        }
        let files = files(&archive, &mut buffer, limits)?.into_iter();
        Ok(Self { archive, files })
    }

    pub fn next<'r>(&mut self, meter: &Rc<Meter<'r>>) -> Result<Option<Entry<'r>>, ConvertError> {
        let Some(file) = self.files.next() else {
            return Ok(None);
        };
        let entry = self.archive.get_entry(file.wayfinder).map_err(refuse)?;
        let (start, end) = entry.compressed_data_range();
        let packed = RangeReader::new(Rc::clone(self.archive.get_ref()), start..end);
        let meter = Rc::clone(meter);
        let content: Layer<'r> = if file.method == CompressionMethod::STORE {
            let verified = entry.verifying_reader(packed);
            Box::new(Unpacked::new(verified, Reason::CorruptZip, meter))
        } else {
            let packed = BufReader::with_capacity(BUFFER_BYTES, packed);
            let verified = entry.verifying_reader(DeflateDecoder::new(packed));
            Box::new(Unpacked::new(verified, Reason::CorruptZip, meter))
        };
        let name = file.name;
        Ok(Some(Entry { name, content }))
    }
}

/// What of the zip is to be converted, everything in it checked.
fn files(
    archive: &Archive,
    buffer: &mut [u8],
    limits: &Limits,
) -> Result<Vec<ZipFile>, ConvertError> {
    let mut files = Vec::new();
    let mut names = HashSet::new();
    let mut ranges = Vec::new();
    let mut entries = archive.entries(buffer);
    while let Some(entry) = entries.next_entry().map_err(refuse)? {
        let shown = shown(&entry);
        if ranges.len() == limits.zip_entries {
            let message = format!("a zip has more than {} entries", limits.zip_entries);
            return Err(Rejection::because(Reason::TooManyEntries, message).into());
        }
        if entry.file_path().as_bytes() == OFFICE_PART {
            return Err(unsupported("an Office file (xlsx, docx or the like)").into());
        }
        let range = check(archive, &entry, limits)
            .and_then(|range| {
                let is_new = names.insert(entry.file_path().as_bytes().to_vec());
                is_new
                    .then_some(range)
                    .ok_or_else(|| corrupt("two entries have the same name").into())
            })
            .map_err(|error| name(error, Some(&shown)))?;
        ranges.push(range);
        if is_wanted(&entry) {
            files.push(ZipFile {
                name: shown,
                wayfinder: entry.wayfinder(),
                method: entry.compression_method(),
            });
        }
    }
    if ranges.len() as u64 != archive.entries_hint() {
        return Err(corrupt("the directory does not have the entries it says").into());
    }
    ranges.sort_unstable();
    if ranges.windows(2).any(|pair| pair[0].1 > pair[1].0) {
        return Err(corrupt("entries overlap").into());
    }
    Ok(files)
}

/// Where the entry lies, its header included.
fn check(
    archive: &Archive,
    entry: &ZipFileHeaderRecord<'_>,
    limits: &Limits,
) -> Result<(u64, u64), ConvertError> {
    if entry.file_path().len() > limits.name_bytes {
        let message = format!("a name has more than {} bytes", limits.name_bytes);
        return Err(Rejection::because(Reason::NameTooLong, message).into());
    }
    let method = entry.compression_method();
    let foreign = if entry.flags().is_encrypted() {
        Some("an encrypted zip".to_owned())
    } else {
        let is_read = [CompressionMethod::STORE, CompressionMethod::DEFLATE].contains(&method);
        (!is_read).then(|| format!("a zip compressed by {method}"))
    };
    if let Some(what) = foreign {
        return Err(unsupported(&what).into());
    }
    let (_, end) = archive
        .get_entry(entry.wayfinder())
        .map_err(refuse)?
        .compressed_data_range();
    if end > archive.directory_offset() {
        return Err(corrupt("an entry reaches beyond the entries").into());
    }
    Ok((entry.local_header_offset(), end))
}

/// Whether it is a file with something in it. One that says it is empty, and is not, is left to be found out.
fn is_wanted(entry: &ZipFileHeaderRecord<'_>) -> bool {
    let path = entry.file_path();
    let path = path.as_bytes();
    let last = path.rsplit(|&byte| byte == b'/').next().unwrap_or(path);
    let is_litter = path.starts_with(b"__MACOSX/") || LITTER.contains(&last);
    let is_empty = entry.uncompressed_size_hint() == 0 && entry.crc32() == 0;
    !entry.is_dir() && !is_litter && !is_empty
}

fn shown(entry: &ZipFileHeaderRecord<'_>) -> String {
    excerpt(entry.file_path().as_bytes()).unwrap_or_else(|| "without a name".into())
}

fn corrupt(message: &str) -> Box<Rejection> {
    Rejection::because(Reason::CorruptZip, message)
}

/// What an error about the zip's structure stands for; one of the temporary file carries what it is.
fn refuse(error: rawzip::Error) -> ConvertError {
    let damaged = |what: &dyn Display| corrupt(&format!("damaged or cut: {what}")).into();
    match error.into_kind() {
        ErrorKind::IO(error) => error.downcast().unwrap_or_else(|error| damaged(&error)),
        kind => damaged(&kind),
    }
}
