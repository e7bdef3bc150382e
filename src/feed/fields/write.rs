//! The values of a record to its JSON object, in the order of the configuration.

use indexmap::IndexMap;
use indexmap::map::Entry;

use super::capture::{Capture, Frame, Slot};
use super::value::{self, Kind};
use super::{Joined, Keyed, Origin, Output, Scalar, Template};
use crate::feed::container::too_large;
use crate::feed::reject::{ConvertError, Reason, Rejection};
use crate::feed::write::Record;

/// The frame of the record itself.
const RECORD_FRAME: Frame = 0;

impl Capture<'_> {
    /// A required value that is missing, or one that does not fit its type, is a rejection with its path.
    pub fn write_record(&self, record: &mut Record<'_>) -> Result<(), ConvertError> {
        self.object(&self.mapping().object, RECORD_FRAME, record)
    }

    fn object(
        &self,
        object: &[(String, Output)],
        frame: Frame,
        record: &mut Record<'_>,
    ) -> Result<(), ConvertError> {
        for (key, output) in object {
            record.raw(key)?;
            self.output(output, frame, record)?;
        }
        record.raw("}")
    }

    fn output(
        &self,
        output: &Output,
        frame: Frame,
        record: &mut Record<'_>,
    ) -> Result<(), ConvertError> {
        match output {
            Output::Scalar(scalar) => self.scalar(scalar, frame, record),
            Output::Constant(json) => record.raw(json),
            Output::Object(object) => self.object(object, frame, record),
            Output::Joined(joined) => self.joined(joined, frame, record),
            Output::List { slot, item } => {
                record.raw("[")?;
                for (index, frame) in self.frames(frame, *slot).enumerate() {
                    record.raw(if index == 0 { "" } else { "," })?;
                    self.output(item, frame, record)?;
                }
                record.raw("]")
            }
            Output::Keyed(keyed) if keyed.fill_gaps => self.numbered(keyed, frame, record),
            Output::Keyed(keyed) => self.keyed(keyed, frame, record),
        }
    }

    #[inline]
    fn scalar(
        &self,
        scalar: &Scalar,
        frame: Frame,
        record: &mut Record<'_>,
    ) -> Result<(), ConvertError> {
        let text = self.scalar_text(scalar, frame);
        // What is not text is missing however its element is written; an empty string is a string.
        let is_word = !matches!(scalar.kind, None | Some(Kind::String));
        let text = match is_word {
            true => text.map(value::trimmed).filter(|word| !word.is_empty()),
            false => text,
        };
        match text {
            None | Some("") if scalar.is_required => Err(missing(scalar).into()),
            None => record.raw(&scalar.default),
            Some(text) => match &scalar.kind {
                None if self.is_literal(scalar.origin, frame) => record.raw(text),
                None | Some(Kind::String) => record.string(text),
                Some(kind) if value::is_json(kind, text) => record.raw(text),
                Some(kind) => record.raw(&value::to_json(kind, text).map_err(|error| {
                    let rejection =
                        Rejection::because(Reason::InvalidValue, format!("the value is {error}"));
                    rejection
                        .with_path(&scalar.path)
                        .with_excerpt(text.as_bytes())
                })?),
            },
        }
    }

    #[inline]
    fn scalar_text(&self, scalar: &Scalar, frame: Frame) -> Option<&str> {
        self.text(frame, scalar.origin).map(|text| {
            if scalar.trim {
                value::trimmed(text)
            } else {
                text
            }
        })
    }

    fn is_literal(&self, origin: Origin, frame: Frame) -> bool {
        matches!(origin, Origin::Slot(slot) if matches!(self.slot(frame, slot), Slot::Literal(_)))
    }

    /// Values that are missing or empty are left out; with none left, the whole is missing.
    fn joined(
        &self,
        joined: &Joined,
        frame: Frame,
        record: &mut Record<'_>,
    ) -> Result<(), ConvertError> {
        let mut texts = self
            .frames(frame, joined.slot)
            .filter_map(|item| self.scalar_text(&joined.value, item))
            .filter(|text| !text.is_empty());
        match texts.next() {
            None if joined.value.is_required => Err(missing(&joined.value).into()),
            None => record.raw(&joined.value.default),
            Some(first) => {
                record.raw("\"")?;
                record.string_part(first)?;
                for text in texts {
                    record.string_part(&joined.separator)?;
                    record.string_part(text)?;
                }
                record.raw("\"")
            }
        }
    }

    /// One key for each frame; of equal keys the first wins.
    fn keyed(
        &self,
        keyed: &Keyed,
        frame: Frame,
        record: &mut Record<'_>,
    ) -> Result<(), ConvertError> {
        let mut values = IndexMap::new();
        let mut key_bytes = 0;
        for item in self.frames(frame, keyed.slot) {
            if let Entry::Vacant(entry) = values.entry(self.key(keyed, item)?) {
                key_bytes += entry.key().len();
                entry.insert(item);
            }
            // All of them are written, and held until then.
            if key_bytes > self.limits().record_bytes {
                return Err(too_large(self.limits()).into());
            }
        }
        record.raw("{")?;
        for (index, (key, item)) in values.into_iter().enumerate() {
            record.raw(if index == 0 { "" } else { "," })?;
            record.string(&key)?;
            record.raw(":")?;
            self.scalar(&keyed.value, item, record)?;
        }
        record.raw("}")
    }

    /// A key for each number from 1 (or 0, if there is one) to the highest, null where no frame has it.
    fn numbered(
        &self,
        keyed: &Keyed,
        frame: Frame,
        record: &mut Record<'_>,
    ) -> Result<(), ConvertError> {
        let mut values = Vec::new();
        for item in self.frames(frame, keyed.slot) {
            values.push((self.number(keyed, item)?, item));
        }
        // Sorted by number, those of one number in the order of the document.
        values.sort();
        let mut values = values.into_iter().peekable();
        let mut number = values.peek().map_or(1, |&(lowest, _)| lowest.min(1));
        let mut opening = "{\"";
        while values.peek().is_some() {
            record.raw(std::mem::replace(&mut opening, ",\""))?;
            self.number_key(keyed, number, record)?;
            match values.next_if(|&(next, _)| next == number) {
                Some((_, item)) => self.scalar(&keyed.value, item, record)?,
                None => record.raw("null")?,
            }
            while values.next_if(|&(next, _)| next == number).is_some() {}
            number += 1;
        }
        record.raw(if opening == "{\"" { "{}" } else { "}" })
    }

    fn number_key(
        &self,
        keyed: &Keyed,
        number: u32,
        record: &mut Record<'_>,
    ) -> Result<(), ConvertError> {
        for (literal, _) in &keyed.key.pieces {
            record.string_part(literal)?;
            record.number(number)?;
        }
        record.string_part(&keyed.key.tail)?;
        record.raw("\":")
    }

    fn key(&self, keyed: &Keyed, frame: Frame) -> Result<String, Box<Rejection>> {
        let origins = keyed.key.pieces.iter().map(|(_, origin)| *origin);
        let values: Vec<&str> = origins
            .map(|origin| self.key_part(keyed, frame, origin))
            .collect::<Result<_, _>>()?;
        Ok(keyed.key.fill(&values))
    }

    fn number(&self, keyed: &Keyed, frame: Frame) -> Result<u32, Box<Rejection>> {
        let highest = self.limits().gap;
        let (_, origin) = keyed.key.pieces[0];
        let text = self.key_part(keyed, frame, origin)?;
        let number = text.trim().parse().ok().filter(|number| *number <= highest);
        number.ok_or_else(|| {
            let message = format!("the number of a key is not one up to {highest}");
            Rejection::because(Reason::InvalidValue, message)
                .with_path(&keyed.path)
                .with_excerpt(text.as_bytes())
        })
    }

    fn key_part(
        &self,
        keyed: &Keyed,
        frame: Frame,
        origin: Origin,
    ) -> Result<&str, Box<Rejection>> {
        self.text(frame, origin).ok_or_else(|| {
            Rejection::because(
                Reason::MissingField,
                "the value that names the key is missing",
            )
            .with_path(&keyed.path)
        })
    }
}

impl Template {
    fn fill(&self, values: &[&str]) -> String {
        let pieces = self
            .pieces
            .iter()
            .zip(values)
            .flat_map(|((literal, _), value)| [literal, *value]);
        pieces.chain([&*self.tail]).collect()
    }
}

fn missing(scalar: &Scalar) -> Box<Rejection> {
    Rejection::because(Reason::MissingField, "a required value is missing or empty")
        .with_path(&scalar.path)
}
