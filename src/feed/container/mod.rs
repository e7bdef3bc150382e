//! The caller's bytes, taken out of whatever they are packed in, for a parser to read.
//!
//! In: any reader. Out: [`Documents`], which are the one text of a file, or those of a zip's entries one after another; each a [`Stream`] of
//! UTF-8. Containers are told by their first bytes, never by a name, and may lie in one another. Promise: no more is given, held, or put
//! on disk than the limits allow, over all layers and documents together.

mod ahead;
mod bzip2;
mod layer;
mod spool;
mod stream;
#[cfg(test)]
mod tests;
mod zip;

use std::io::{Cursor, Read};
use std::rc::Rc;

use encoding_rs::Encoding;
use layer::{Compression, Counted, Layer, Meter};
pub use stream::{Stream, check_text, too_large};
use zip::Zip;

use super::encoding;
use super::limits::Limits;
use super::progress::Progress;
use super::reject::{ConvertError, Reason, Rejection};

/// How much of every layer is looked at: enough for the magic bytes of all containers, and for an XML declaration.
pub const HEAD_BYTES: usize = 1 << 10;

/// What the first bytes of a container say that it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Stream(Compression),
    Zip,
    /// Recognised and not read, so that the rejection can name it.
    Unsupported(&'static str),
}

/// Magic bytes, and where they stand.
const MAGIC: [(usize, &[u8], Kind); 17] = [
    (0, b"\x1f\x8b", Kind::Stream(Compression::Gzip)),
    (0, b"\x28\xb5\x2f\xfd", Kind::Stream(Compression::Zstd)),
    // The skippable frame that pzstd begins with.
    (0, b"\x50\x2a\x4d\x18", Kind::Stream(Compression::Zstd)),
    // An empty zip has no entry to begin with.
    (0, b"PK\x03\x04", Kind::Zip),
    (0, b"PK\x05\x06", Kind::Zip),
    (0, b"\xfd7zXZ\0", Kind::Stream(Compression::Xz)),
    // The magic of bzip2 is text; what follows the block size, the first block's or the end's, is not.
    (4, b"1AY&SY", Kind::Stream(Compression::Bzip2)),
    (
        4,
        b"\x17\x72\x45\x38\x50\x90",
        Kind::Stream(Compression::Bzip2),
    ),
    (
        0,
        b"PK\x07\x08",
        Kind::Unsupported("a zip in several parts"),
    ),
    (0, b"7z\xbc\xaf\x27\x1c", Kind::Unsupported("7z")),
    (0, b"Rar!\x1a\x07", Kind::Unsupported("rar")),
    (0, b"\x1f\x9d", Kind::Unsupported("compress (.Z)")),
    (0, b"\x04\x22\x4d\x18", Kind::Unsupported("lz4")),
    (0, b"LZIP\x01", Kind::Unsupported("lzip")),
    (0, b"\xff\x06\0\0sNaPpY", Kind::Unsupported("snappy")),
    (
        0,
        b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1",
        Kind::Unsupported("an Office file"),
    ),
    (257, b"ustar", Kind::Unsupported("tar")),
];

impl Kind {
    fn of(head: &[u8]) -> Option<Self> {
        let has = |at: usize, magic| head.get(at..).is_some_and(|rest| rest.starts_with(magic));
        let (.., kind) = MAGIC.iter().find(|(at, magic, _)| has(*at, magic))?;
        match kind {
            Self::Stream(Compression::Bzip2) if !head.starts_with(b"BZh") => None,
            _ => Some(*kind),
        }
    }
}

/// Whether the file that begins so has to be unpacked, which can take any time and space.
pub fn is_packed(head: &[u8]) -> bool {
    Kind::of(head).is_some()
}

/// The documents of one file.
pub struct Documents<'r> {
    /// Until the first document is asked for.
    input: Option<Layer<'r>>,
    /// Zips being read, each in an entry of the one before.
    zips: Vec<OpenZip>,
    meter: Rc<Meter<'r>>,
    limits: &'r Limits,
    /// The encoding of a document that does not say.
    encoding: Option<&'static Encoding>,
}

struct OpenZip {
    zip: Zip,
    /// How many containers it lies in, itself included.
    depth: usize,
    /// The entry of another zip that it is.
    entry: Option<Rc<str>>,
}

impl<'r> Documents<'r> {
    pub fn new(
        input: &'r mut dyn Read,
        limits: &'r Limits,
        encoding: Option<&'static Encoding>,
    ) -> Self {
        let meter = Rc::new(Meter::new(limits));
        let input = Counted {
            input,
            meter: Rc::clone(&meter),
        };
        Self {
            input: Some(Box::new(input)),
            zips: Vec::new(),
            meter,
            limits,
            encoding,
        }
    }

    /// Says in `progress` how many bytes there are.
    pub fn telling(self, progress: &'r Progress) -> Self {
        self.meter.tell(progress);
        self
    }

    /// The next document; the one before must have been read to its end.
    pub fn next(&mut self) -> Result<Option<Stream<'r>>, ConvertError> {
        if let Some(input) = self.input.take()
            && let Some(document) = self.unpack(input, 0, None)?
        {
            return Ok(Some(document));
        }
        while let Some(open) = self.zips.last_mut() {
            let (depth, outer) = (open.depth, open.entry.clone());
            let entry = match open.zip.next(&self.meter) {
                Ok(Some(entry)) => entry,
                Ok(None) => {
                    self.zips.pop();
                    continue;
                }
                Err(error) => return Err(name(error, outer.as_deref())),
            };
            let inner: Rc<str> = match outer {
                Some(outer) => format!("{outer}: zip entry {}", entry.name).into(),
                None => entry.name.into(),
            };
            let document = self
                .unpack(entry.content, depth, Some(Rc::clone(&inner)))
                .map_err(|error| name(error, Some(&inner)))?;
            if document.is_some() {
                return Ok(document);
            }
        }
        Ok(None)
    }

    /// Bytes taken from the input.
    pub fn input_bytes(&self) -> u64 {
        self.meter.input_bytes()
    }

    /// Bytes of all documents so far.
    pub fn text_bytes(&self) -> u64 {
        self.meter.text_bytes()
    }

    /// The text in `layer`; or, if that is a zip in the end, nothing, and the zip is the next to be read.
    fn unpack(
        &mut self,
        mut layer: Layer<'r>,
        mut depth: usize,
        entry: Option<Rc<str>>,
    ) -> Result<Option<Stream<'r>>, ConvertError> {
        loop {
            let mut head = Vec::new();
            layer
                .by_ref()
                .take(HEAD_BYTES as u64)
                .read_to_end(&mut head)
                .map_err(ConvertError::from_carrier)?;
            let Some(kind) = Kind::of(&head) else {
                let text = encoding::decode(head, layer, self.encoding)?;
                let meter = Rc::clone(&self.meter);
                return Ok(Some(Stream::new(text, meter, entry, self.limits)));
            };
            if depth == self.limits.nesting {
                let message = format!("more than {depth} containers lie in one another");
                return Err(Rejection::because(Reason::TooManyContainers, message).into());
            }
            depth += 1;
            let whole: Layer<'r> = Box::new(Cursor::new(head).chain(layer));
            layer = match kind {
                Kind::Stream(compression) => compression
                    // Of containers in one another, the outermost: that is one thread for a file, whatever is in it.
                    .decoder(whole, depth == 1, &self.meter)
                    .map_err(ConvertError::from_carrier)?,
                Kind::Zip => {
                    let zip = Zip::open(whole, self.limits)?;
                    self.zips.push(OpenZip { zip, depth, entry });
                    return Ok(None);
                }
                Kind::Unsupported(name) => return Err(unsupported(name).into()),
            };
        }
    }
}

/// Says in which entry of a zip a file is refused. That there are too many rejections stands at the first of them, which says so already.
fn name(error: ConvertError, entry: Option<&str>) -> ConvertError {
    error.complete(|rejection| {
        if rejection.reason != Reason::TooManyRejections {
            name_entry(rejection, entry);
        }
    })
}

/// Says in which entry of a zip a rejection happened.
pub fn name_entry(rejection: &mut Rejection, entry: Option<&str>) {
    if let Some(entry) = entry {
        let inside = rejection.path.take();
        rejection.path = Some(match inside {
            Some(path) => format!("zip entry {entry}: {path}"),
            None => format!("zip entry {entry}"),
        });
    }
}

fn unsupported(container: &str) -> Box<Rejection> {
    let message = format!("the container is not supported: {container}");
    Rejection::because(Reason::UnsupportedContainer, message)
}
