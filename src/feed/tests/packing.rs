//! Containers made here, the wrong ones too.

use std::io::Write;

use flate2::write::{DeflateEncoder, GzEncoder};
use flate2::{Compression, Crc};

pub fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

pub fn zstd(bytes: &[u8]) -> Vec<u8> {
    zstd_with_window(bytes, 20)
}

/// With a checksum, and a window of two to the power of `log` bytes.
pub fn zstd_with_window(bytes: &[u8], log: u32) -> Vec<u8> {
    let mut encoder = zstd::Encoder::new(Vec::new(), 1).unwrap();
    encoder.include_checksum(true).unwrap();
    encoder.window_log(log).unwrap();
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

pub fn bzip2(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = bzip2::write::BzEncoder::new(Vec::new(), bzip2::Compression::new(1));
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

/// Takes 1 MiB and a little to undo.
pub fn xz(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = liblzma::write::XzEncoder::new(Vec::new(), 1);
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

pub fn zip_of_one(bytes: &[u8]) -> Vec<u8> {
    zip(&[ZipEntry::new("feed.xml", bytes)])
}

/// An entry of a zip, every field to be falsified.
#[derive(Clone)]
pub struct ZipEntry {
    pub name: Vec<u8>,
    pub flags: u16,
    pub method: u16,
    pub crc: u32,
    pub size: u64,
    pub packed_size: u64,
    /// Where its header is said to be, if not where it is.
    pub offset: Option<u64>,
    pub packed: Vec<u8>,
}

impl ZipEntry {
    pub fn new(name: impl AsRef<[u8]>, bytes: &[u8]) -> Self {
        let mut encoder = DeflateEncoder::new(Vec::new(), Compression::fast());
        encoder.write_all(bytes).unwrap();
        let packed = encoder.finish().unwrap();
        Self {
            method: 8,
            packed_size: packed.len() as u64,
            packed,
            ..Self::stored(name, bytes)
        }
    }

    pub fn stored(name: impl AsRef<[u8]>, bytes: &[u8]) -> Self {
        let mut crc = Crc::new();
        crc.update(bytes);
        Self {
            name: name.as_ref().to_vec(),
            flags: 0,
            method: 0,
            crc: crc.sum(),
            size: bytes.len() as u64,
            packed_size: bytes.len() as u64,
            offset: None,
            packed: bytes.to_vec(),
        }
    }

    /// What the local header and the directory have in common.
    fn common(&self, is_zip64: bool, extra_len: usize) -> Vec<u8> {
        let size = |size: u64| if is_zip64 { u32::MAX } else { size as u32 };
        [
            &45u16.to_le_bytes()[..],
            &self.flags.to_le_bytes(),
            &self.method.to_le_bytes(),
            &[0; 4],
            &self.crc.to_le_bytes(),
            &size(self.packed_size).to_le_bytes(),
            &size(self.size).to_le_bytes(),
            &(self.name.len() as u16).to_le_bytes(),
            &(extra_len as u16).to_le_bytes(),
        ]
        .concat()
    }
}

pub fn zip(entries: &[ZipEntry]) -> Vec<u8> {
    zip_with(entries, entries.len() as u64, false)
}

/// With every number that ZIP64 can hold in its place there.
pub fn zip64(entries: &[ZipEntry]) -> Vec<u8> {
    zip_with(entries, entries.len() as u64, true)
}

/// As APPNOTE.TXT (PKWARE, version 6.3) has it.
pub fn zip_with(entries: &[ZipEntry], count: u64, is_zip64: bool) -> Vec<u8> {
    let (mut zip, mut directory) = (Vec::new(), Vec::new());
    for entry in entries {
        let offset = entry.offset.unwrap_or(zip.len() as u64);
        zip.extend([b"PK\x03\x04", &entry.common(is_zip64, 0)[..]].concat());
        zip.extend([&entry.name[..], &entry.packed].concat());
        let numbers = [entry.size, entry.packed_size, offset].map(u64::to_le_bytes);
        let extra = match is_zip64 {
            true => [b"\x01\0\x18\0", numbers.as_flattened()].concat(),
            false => Vec::new(),
        };
        directory.extend(
            [
                b"PK\x01\x02\x2d\0",
                &entry.common(is_zip64, extra.len())[..],
            ]
            .concat(),
        );
        directory.extend([0; 10]);
        let short = if is_zip64 { u32::MAX } else { offset as u32 };
        directory.extend(short.to_le_bytes());
        directory.extend([&entry.name[..], &extra].concat());
    }
    let (start, len) = (zip.len() as u64, directory.len() as u64);
    zip.extend(directory);
    if is_zip64 {
        let end = (zip.len() as u64).to_le_bytes();
        zip.extend(
            [
                b"PK\x06\x06",
                &44u64.to_le_bytes()[..],
                &[45, 0, 45, 0],
                &[0; 8],
            ]
            .concat(),
        );
        zip.extend(
            [count, count, len, start]
                .map(u64::to_le_bytes)
                .as_flattened(),
        );
        zip.extend([b"PK\x06\x07\0\0\0\0", &end[..], &1u32.to_le_bytes()].concat());
        zip.extend([&b"PK\x05\x06\0\0\0\0"[..], &[0xff; 12], &[0; 2]].concat());
    } else {
        let count = (count as u16).to_le_bytes();
        zip.extend([&b"PK\x05\x06\0\0\0\0"[..], &count, &count].concat());
        zip.extend(
            [len as u32, start as u32]
                .map(u32::to_le_bytes)
                .as_flattened(),
        );
        zip.extend([0; 2]);
    }
    zip
}
