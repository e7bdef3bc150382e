//! Bytes on disk until it is known what becomes of them.

use std::fs::File;
use std::io::{self, Seek, Write};

/// A file without a name: it is gone with the process, however that ends.
pub fn unnamed_file() -> io::Result<File> {
    let path = std::env::temp_dir().join(format!("feedmill-{}", uuid::Uuid::new_v4()));
    let file = File::options()
        .read(true)
        .write(true)
        .create_new(true)
        .open(&path)?;
    std::fs::remove_file(path)?;
    Ok(file)
}

/// An unnamed file that is there once something is written.
#[derive(Debug, Default)]
pub struct Spool {
    file: Option<io::BufWriter<File>>,
}

impl Spool {
    /// What was written, from its beginning; `None` when nothing was.
    pub fn into_file(self) -> io::Result<Option<File>> {
        let Some(writer) = self.file else {
            return Ok(None);
        };
        let mut file = writer.into_inner().map_err(io::Error::from)?;
        file.rewind()?;
        Ok(Some(file))
    }
}

impl Write for Spool {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let file = match &mut self.file {
            Some(file) => file,
            None => self.file.insert(io::BufWriter::new(unnamed_file()?)),
        };
        file.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.as_mut().map_or(Ok(()), Write::flush)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    #[test]
    fn what_was_written_is_read_back_and_nothing_leaves_no_file() {
        assert!(Spool::default().into_file().unwrap().is_none());
        let mut spool = Spool::default();
        spool.write_all(b"one\n").unwrap();
        spool.write_all(b"two\n").unwrap();
        let mut text = String::new();
        let mut file = spool.into_file().unwrap().unwrap();
        file.read_to_string(&mut text).unwrap();
        assert_eq!(text, "one\ntwo\n");
    }
}
