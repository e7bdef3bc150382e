//! What is odd about a file that is converted all the same.

use std::fmt;

/// Something that whoever keeps the feed's configuration should look at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Warning {
    /// In a record converted whole, elements of this path are an array, and a single one of them is not. `arrays` would settle it.
    Repeated {
        /// From the record, as the document writes it.
        path: String,
        /// The first record where it is so.
        record: u64,
    },
    /// One of several record paths leads nowhere in this file.
    UnusedRecordPath { path: String },
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Repeated { path, record } => write!(
                f,
                "`{path}` is repeated in record {record}, an array there and a single value elsewhere; name it in `arrays`"
            ),
            Self::UnusedRecordPath { path } => {
                write!(f, "nothing is on the record path `{path}`")
            }
        }
    }
}

/// The warnings of one file: each path once, and not without end.
#[derive(Debug, Default)]
pub struct Warnings(Vec<Warning>);

impl Warnings {
    pub const MAX: usize = 20;

    /// Elements of one name are an array because there are several. Asked for every such array: to be quick when that is known.
    pub fn repeated<'n>(
        &mut self,
        names: impl DoubleEndedIterator<Item = &'n str> + Clone,
        record: u64,
    ) {
        let is_same = |warning: &Warning| match warning {
            Warning::Repeated { path, .. } => path.rsplit('/').eq(names.clone().rev()),
            Warning::UnusedRecordPath { .. } => false,
        };
        if self.0.len() < Self::MAX && !self.0.iter().any(is_same) {
            let path = names.collect::<Vec<_>>().join("/");
            self.0.push(Warning::Repeated { path, record });
        }
    }

    pub fn unused(&mut self, paths: impl Iterator<Item = String>) {
        let room = Self::MAX - self.0.len();
        let warnings = paths.map(|path| Warning::UnusedRecordPath { path });
        self.0.extend(warnings.take(room));
    }

    pub fn take(&mut self) -> Vec<Warning> {
        std::mem::take(&mut self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_path_is_told_once_and_there_are_never_too_many() {
        let mut warnings = Warnings::default();
        for record in 1..=3 {
            warnings.repeated(["a", "b"].into_iter(), record);
            warnings.repeated(["b"].into_iter(), record);
        }
        let text: Vec<_> = warnings.0.iter().map(Warning::to_string).collect();
        assert_eq!(
            text,
            [
                "`a/b` is repeated in record 1, an array there and a single value elsewhere; name it in `arrays`",
                "`b` is repeated in record 1, an array there and a single value elsewhere; name it in `arrays`",
            ]
        );
        for name in (0..50).map(|n| n.to_string()) {
            warnings.repeated([&*name].into_iter(), 1);
        }
        warnings.unused(["x".to_owned()].into_iter());
        assert_eq!(warnings.take().len(), Warnings::MAX);
    }
}
