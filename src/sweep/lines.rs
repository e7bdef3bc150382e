//! A listing file: an object that names the objects to take, one key a line. Pure.

use crate::object::{ETag, ObjectRef};

/// Bytes read at a time; a line may not be longer.
pub const BLOCK_BYTES: u64 = 64 * 1024;

/// Longest listing file, in bytes: ten million names of a hundred.
pub const MAX_LIST_BYTES: u64 = 1024 * 1024 * 1024;

/// How far a listing file is read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bookmark {
    /// The version that is read.
    pub etag: ETag,
    pub size: u64,
    pub next_byte: u64,
    pub lines: u64,
}

impl Bookmark {
    /// The bytes to read next; `None` at the end.
    pub fn block(&self) -> Option<std::ops::Range<u64>> {
        let end = self.size.min(self.next_byte + BLOCK_BYTES);
        (self.next_byte < end).then_some(self.next_byte..end)
    }

    /// Takes the whole lines of a block and moves on behind them; `None` when its first line does not end in it.
    pub fn take_lines<'a>(&mut self, block: &'a [u8]) -> Option<Vec<Line<'a>>> {
        let last = self.next_byte + block.len() as u64 >= self.size;
        let whole = match block.iter().rposition(|byte| *byte == b'\n') {
            _ if last => block,
            Some(newline) => &block[..=newline],
            None => return None,
        };
        let text = match self.next_byte {
            0 => whole.strip_prefix("\u{feff}".as_bytes()).unwrap_or(whole),
            _ => whole,
        };
        let first = self.lines + 1;
        let split = text
            .strip_suffix(b"\n")
            .unwrap_or(text)
            .split(|byte| *byte == b'\n');
        let numbered = (first..).zip(split).map(|(number, bytes)| Line {
            number,
            bytes: bytes.strip_suffix(b"\r").unwrap_or(bytes),
        });
        let lines: Vec<Line<'a>> = numbered.collect();
        self.next_byte += whole.len() as u64;
        self.lines += lines.len() as u64;
        Some(lines)
    }
}

/// A line without its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Line<'a> {
    /// From 1.
    pub number: u64,
    bytes: &'a [u8],
}

impl Line<'_> {
    /// The object it names: `prefix` and the line make the key, or the line is an `s3://` URL in the same bucket. `None`
    /// for an empty line.
    pub fn object(&self, bucket: &str, prefix: &str) -> Option<Result<ObjectRef, String>> {
        if self.bytes.is_empty() {
            return None;
        }
        Some(
            self.read(bucket, prefix)
                .map_err(|reason| format!("line {}: {reason}", self.number)),
        )
    }

    fn read(&self, bucket: &str, prefix: &str) -> Result<ObjectRef, String> {
        let text = str::from_utf8(self.bytes).map_err(|_| "it is not UTF-8".to_owned())?;
        if !text.starts_with("s3://") {
            return ObjectRef::try_new(bucket, format!("{prefix}{text}"))
                .map_err(|error| error.to_string());
        }
        let object = ObjectRef::from_url(text).map_err(|error| error.to_string())?;
        match object.bucket() == bucket {
            true => Ok(object),
            false => Err(format!(
                "{object} is not in the bucket of the list, {bucket}"
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bookmark(size: usize) -> Bookmark {
        Bookmark {
            etag: ETag::parse("e").unwrap(),
            size: size as u64,
            next_byte: 0,
            lines: 0,
        }
    }

    /// What a list names, read in blocks of so many bytes.
    fn read(list: &[u8], block_bytes: usize) -> Vec<Result<String, String>> {
        let mut bookmark = bookmark(list.len());
        let mut objects = Vec::new();
        while bookmark.block().is_some() {
            let start = bookmark.next_byte as usize;
            let block = &list[start..list.len().min(start + block_bytes)];
            let lines = bookmark.take_lines(block).unwrap();
            let named = lines.iter().filter_map(|line| line.object("b", "x/"));
            objects.extend(named.map(|object| object.map(|object| object.to_string())));
        }
        objects
    }

    #[test]
    fn every_line_names_an_object_wherever_the_blocks_end() {
        let list = "\u{feff}a.xml\r\n\n  b +%20ü.xml\r\ns3://b/y/c.xml\n#d\nlast".as_bytes();
        let named = |key: &str| Ok(format!("s3://b/{key}"));
        let expected = [
            named("x/a.xml"),
            named("x/  b +%20ü.xml"),
            named("y/c.xml"),
            named("x/#d"),
            named("x/last"),
        ];
        for block_bytes in 20..=list.len() {
            assert_eq!(read(list, block_bytes), expected, "{block_bytes}");
        }
    }

    #[test]
    fn a_line_that_names_no_object_of_this_bucket_says_why_and_where() {
        let long = "k".repeat(1_023);
        let list = [
            b"ok\ns3://other/k\n\xff\n" as &[u8],
            long.as_bytes(),
            b"\ns3://b/\n",
        ]
        .concat();
        let errors: Vec<String> = read(&list, 2_000)
            .into_iter()
            .filter_map(Result::err)
            .collect();
        assert_eq!(
            errors,
            [
                "line 2: s3://other/k is not in the bucket of the list, b",
                "line 3: it is not UTF-8",
                "line 4: the object key has 1025 bytes, more than 1024",
                "line 5: the object key is empty",
            ]
        );
    }

    #[test]
    fn an_empty_list_names_nothing_and_a_line_without_an_end_is_not_taken_in_part() {
        assert_eq!(bookmark(0).block(), None);
        assert_eq!(read(b"\n\r\n\n", 2), []);
        assert_eq!(bookmark(100).take_lines(b"no end in sight"), None);
    }
}
