//! What is odd about a file that is converted all the same.

use std::fmt;

use serde::{Serialize, Serializer};

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

impl Serialize for Warning {
    /// As text for people.
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// The warnings of one file: each path once, and not without end.
#[derive(Debug, Default)]
pub struct Warnings {
    list: Vec<Warning>,
    /// The paths of those about repetition, name by name.
    repeated: Vec<Vec<String>>,
}

impl Warnings {
    pub const MAX: usize = 20;

    /// Elements of one name are an array because there are several. Asked for every such array: to be quick when that is known.
    pub fn repeated<'n>(
        &mut self,
        names: impl DoubleEndedIterator<Item = &'n str> + Clone,
        record: u64,
    ) {
        let is_full = self.list.len() == Self::MAX;
        // From the end, where paths differ most.
        let is_same = |told: &Vec<String>| told.iter().rev().eq(names.clone().rev());
        if is_full || self.repeated.iter().any(is_same) {
            return;
        }
        let names: Vec<_> = names.map(str::to_owned).collect();
        let path = names.join("/");
        self.list.push(Warning::Repeated { path, record });
        self.repeated.push(names);
    }

    pub fn unused(&mut self, paths: impl Iterator<Item = String>) {
        let room = Self::MAX - self.list.len();
        let warnings = paths.map(|path| Warning::UnusedRecordPath { path });
        self.list.extend(warnings.take(room));
    }

    pub fn take(&mut self) -> Vec<Warning> {
        std::mem::take(&mut self.list)
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
        let text: Vec<_> = warnings.list.iter().map(Warning::to_string).collect();
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
