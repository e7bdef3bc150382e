//! Records to the caller's output: separators, buffering, counting.
//!
//! A record is put together in memory, at most `record_bytes` of it, and reaches the output only when it is complete.
//! Compact JSON, one record per line, unless it is to be pretty; the same bytes for the same records.

mod record;

use std::rc::Rc;

pub use record::{Record, json_string};

use super::batch::{Batches, Done};
use super::encode::Encoder;
use super::limits::Limits;
use super::progress::Progress;
use super::reject::{ConvertError, Place, Reason, Rejection};
use super::rejects::Rejects;
use super::spec::OutputFormat;
use super::steps::Outputs;
use super::warnings::Warnings;

/// Complete records are kept back until they are this many bytes.
const FLUSH_BYTES: usize = 64 << 10;

pub struct Records<'w> {
    output: Encoder<'w>,
    format: OutputFormat,
    limits: &'w Limits,
    pending: Vec<u8>,
    /// Records of the file that are done with, those rejected included.
    taken: u64,
    written: u64,
    /// A record on its way to being indented.
    compact: Vec<u8>,
    rejects: Rejects<'w>,
    /// What is done to records before they are output, if anything.
    batches: Option<Batches<'w>>,
    /// Where the next record begins.
    place: Option<Place>,
    progress: Option<&'w Progress>,
    pub warnings: Warnings,
}

impl<'w> Records<'w> {
    pub fn new(output: Encoder<'w>, format: OutputFormat, limits: &'w Limits) -> Self {
        Self {
            output,
            format,
            limits,
            pending: Vec::with_capacity(2 * FLUSH_BYTES),
            taken: 0,
            written: 0,
            compact: Vec::new(),
            rejects: Rejects::default(),
            batches: None,
            place: None,
            progress: None,
            warnings: Warnings::default(),
        }
    }

    /// Does the steps of `batches` to each record.
    pub fn through(self, batches: Option<Batches<'w>>) -> Self {
        Self { batches, ..self }
    }

    /// Leaves rejected records out as far as `rejects` allows it; without, the first one is an error.
    pub fn tolerating(self, rejects: Rejects<'w>) -> Self {
        Self { rejects, ..self }
    }

    /// Says in `progress` how many records there are.
    pub fn telling(self, progress: &'w Progress) -> Self {
        Self {
            progress: Some(progress),
            ..self
        }
    }

    /// What comes next is in this entry of a zip, or in none.
    pub fn enter(&mut self, entry: Option<Rc<str>>) {
        self.rejects.enter(entry);
    }

    /// Records of the file that are done with, those rejected included.
    pub fn count(&self) -> u64 {
        self.taken
    }

    /// Records in the output.
    pub fn written(&self) -> u64 {
        self.written
    }

    pub fn output_bytes(&self) -> u64 {
        self.output.bytes()
    }

    /// Whether [`Self::at`] should be called: for rejections that come up after a record was added.
    pub fn wants_places(&self) -> bool {
        self.batches.is_some()
    }

    /// Says where the next record begins.
    pub fn at(&mut self, place: Place) {
        self.place = Some(place);
    }

    /// Adds the record that `write` puts together. On an error nothing of it is kept.
    pub fn add(
        &mut self,
        write: impl FnOnce(&mut Record<'_>) -> Result<(), ConvertError>,
    ) -> Result<(), ConvertError> {
        self.check_count()?;
        if self.batches.is_some() {
            return self.add_to_batch(write);
        }
        if self.format == OutputFormat::Pretty {
            return self.add_pretty(write);
        }
        let complete = self.pending.len();
        self.separate();
        let record = Record::new(&mut self.pending, self.limits);
        let added = write(&mut record.warning(&mut self.warnings, self.taken + 1));
        if let Err(error) = added {
            self.pending.truncate(complete);
            return Err(error);
        }
        self.taken += 1;
        self.end_record()
    }

    /// Whether the file may have one more record.
    fn check_count(&self) -> Result<(), Box<Rejection>> {
        let most = self.limits.records;
        if self.taken == most {
            let message = format!("the file has more than {most} records");
            return Err(Rejection::because(Reason::TooManyRecords, message));
        }
        Ok(())
    }

    fn add_pretty(
        &mut self,
        write: impl FnOnce(&mut Record<'_>) -> Result<(), ConvertError>,
    ) -> Result<(), ConvertError> {
        let mut compact = std::mem::take(&mut self.compact);
        compact.clear();
        let record = Record::new(&mut compact, self.limits);
        let written = write(&mut record.warning(&mut self.warnings, self.taken + 1));
        let added = written.and_then(|()| {
            self.taken += 1;
            self.put(&compact)
        });
        self.compact = compact;
        added
    }

    /// Puts out a record that is complete.
    fn put(&mut self, json: &[u8]) -> Result<(), ConvertError> {
        self.separate();
        match self.format {
            OutputFormat::Pretty => self.indent(json)?,
            OutputFormat::Array | OutputFormat::Lines => self.pending.extend_from_slice(json),
        }
        self.end_record()
    }

    /// Compact JSON with a line for each member and element. It may become many times as long, so it goes out on the way.
    fn indent(&mut self, json: &[u8]) -> Result<(), ConvertError> {
        let mut depth = 1;
        let (mut in_string, mut is_escaped) = (false, false);
        for (index, &byte) in json.iter().enumerate() {
            if in_string {
                self.pending.push(byte);
                in_string = is_escaped || byte != b'"';
                is_escaped = !is_escaped && byte == b'\\';
                continue;
            }
            let is_empty = |index: usize| matches!(json.get(index..index + 2), Some(b"{}" | b"[]"));
            match byte {
                b'{' | b'[' => {
                    self.pending.push(byte);
                    if !is_empty(index) {
                        depth += 1;
                        self.break_line(depth);
                    }
                }
                b'}' | b']' => {
                    if index == 0 || !is_empty(index - 1) {
                        depth -= 1;
                        self.break_line(depth);
                    }
                    self.pending.push(byte);
                }
                b',' => {
                    self.pending.push(byte);
                    self.break_line(depth);
                }
                b':' => self.pending.extend_from_slice(b": "),
                _ => {
                    in_string = byte == b'"';
                    self.pending.push(byte);
                }
            }
            if self.pending.len() >= FLUSH_BYTES {
                self.flush()?;
            }
        }
        Ok(())
    }

    fn break_line(&mut self, depth: usize) {
        self.pending.push(b'\n');
        self.pending.resize(self.pending.len() + 2 * depth, b' ');
    }

    fn add_to_batch(
        &mut self,
        write: impl FnOnce(&mut Record<'_>) -> Result<(), ConvertError>,
    ) -> Result<(), ConvertError> {
        let place = self.place.take();
        if let Some(batches) = &mut self.batches {
            let json = batches.json();
            let complete = json.len();
            let record = Record::new(json, self.limits);
            let written = write(&mut record.warning(&mut self.warnings, self.taken + 1));
            if let Err(error) = written {
                json.truncate(complete);
                return Err(error);
            }
            self.taken += 1;
            batches.push(self.taken, place);
        }
        self.run_batches(false)
    }

    /// Does the steps that are due, or those of all records so far.
    fn run_batches(&mut self, all: bool) -> Result<(), ConvertError> {
        let Some(mut batches) = self.batches.take() else {
            return Ok(());
        };
        let ran = batches.run(all, &mut |done| self.take_done(done));
        self.batches = Some(batches);
        ran
    }

    fn take_done(&mut self, done: Done) -> Result<(), ConvertError> {
        let Outputs { json, ends } = done.outputs;
        let (mut start, mut ends) = (0, ends.into_iter());
        for record in done.records {
            match record.outputs {
                Ok(count) => {
                    for end in ends.by_ref().take(count) {
                        self.put(&json[start..end])?;
                        start = end;
                    }
                }
                Err(error) => self.take_rejected(error, record.number)?,
            }
        }
        Ok(())
    }

    fn separate(&mut self) {
        let separator: &[u8] = match self.format {
            OutputFormat::Array if self.written == 0 => b"[\n",
            OutputFormat::Array => b",\n",
            OutputFormat::Pretty if self.written == 0 => b"[\n  ",
            OutputFormat::Pretty => b",\n  ",
            OutputFormat::Lines => b"",
        };
        self.pending.extend_from_slice(separator);
    }

    fn end_record(&mut self) -> Result<(), ConvertError> {
        if self.format == OutputFormat::Lines {
            self.pending.push(b'\n');
        }
        self.written += 1;
        if let Some(progress) = self.progress {
            progress.records.set(self.written);
        }
        if self.pending.len() >= FLUSH_BYTES {
            self.flush()
        } else {
            Ok(())
        }
    }

    /// Leaves the record in hand out, if the error is about it alone and not one too many; otherwise gives the error back.
    pub fn reject(&mut self, error: ConvertError) -> Result<(), ConvertError> {
        self.place = None;
        if let ConvertError::Rejected(rejection) = &error
            && rejection.reason.is_of_record()
        {
            self.check_count()?;
        }
        match (error, &mut self.batches) {
            (ConvertError::Rejected(rejection), Some(batches))
                if rejection.reason.is_of_record() =>
            {
                self.taken += 1;
                batches.push_rejected(self.taken, rejection);
                self.run_batches(false)
            }
            (error, _) => {
                self.taken += 1;
                self.take_rejected(error, self.taken)
            }
        }
    }

    fn take_rejected(&mut self, error: ConvertError, number: u64) -> Result<(), ConvertError> {
        match error {
            ConvertError::Rejected(rejection) if rejection.reason.is_of_record() => {
                self.rejects.take(rejection, number)?;
                if let Some(progress) = self.progress {
                    progress.rejected.set(self.rejects.count());
                }
                Ok(())
            }
            error => Err(error),
        }
    }

    /// Does all steps that are left. Of two reasons to refuse the file, the one of the earlier record counts.
    pub fn settle(&mut self, parsed: Result<(), ConvertError>) -> Result<(), ConvertError> {
        match parsed {
            Ok(()) | Err(ConvertError::Rejected(_)) => self.run_batches(true).and(parsed),
            failed => failed,
        }
    }

    /// Judges the rejected records; how many there are, and the first of them.
    pub fn finish_rejects(&mut self) -> Result<(u64, Vec<Rejection>), ConvertError> {
        self.rejects.finish(self.taken)
    }

    /// Ends the output. Nothing can be added afterwards.
    pub fn finish(&mut self) -> Result<(), ConvertError> {
        let end: &[u8] = match self.format {
            OutputFormat::Array | OutputFormat::Pretty if self.written == 0 => b"[\n]\n",
            OutputFormat::Array | OutputFormat::Pretty => b"\n]\n",
            OutputFormat::Lines => b"",
        };
        self.pending.extend_from_slice(end);
        self.flush()?;
        self.output.finish().map_err(ConvertError::Write)
    }

    fn flush(&mut self) -> Result<(), ConvertError> {
        self.output
            .write_all(&self.pending)
            .map_err(ConvertError::Write)?;
        self.pending.clear();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::feed::reject::Reason;

    fn plain(output: &mut Vec<u8>) -> Encoder<'_> {
        Encoder::new(output, None).unwrap()
    }

    fn written(format: OutputFormat, records: &[&str]) -> String {
        let (mut output, limits) = (Vec::new(), Limits::default());
        let mut writer = Records::new(plain(&mut output), format, &limits);
        for text in records {
            writer.add(|record| record.string(text)).unwrap();
        }
        writer.finish().unwrap();
        let bytes = writer.output_bytes();
        drop(writer);
        assert_eq!(bytes, output.len() as u64);
        String::from_utf8(output).unwrap()
    }

    #[test]
    fn both_formats_have_one_record_per_line() {
        assert_eq!(
            written(OutputFormat::Array, &["a", "b"]),
            "[\n\"a\",\n\"b\"\n]\n"
        );
        assert_eq!(written(OutputFormat::Array, &[]), "[\n]\n");
        assert_eq!(written(OutputFormat::Lines, &["a", "b"]), "\"a\"\n\"b\"\n");
        assert_eq!(written(OutputFormat::Lines, &[]), "");
    }

    #[test]
    fn pretty_is_what_serde_json_makes_pretty() {
        let json = r#"[{"a":[],"b":{},"c":[1,{"d":"x\"]\\"},[]],"e":"{,:"},7,"a,b",[[null]]]"#;
        let records: Vec<serde_json::Value> = serde_json::from_str(json).unwrap();
        let (mut output, limits) = (Vec::new(), Limits::default());
        let mut writer = Records::new(plain(&mut output), OutputFormat::Pretty, &limits);
        for value in &records {
            writer.add(|record| record.raw(&value.to_string())).unwrap();
        }
        writer.finish().unwrap();
        drop(writer);
        assert_eq!(
            String::from_utf8(output).unwrap(),
            serde_json::to_string_pretty(&records).unwrap() + "\n"
        );
    }

    #[test]
    fn a_record_cannot_outgrow_its_limit() {
        let limits = Limits {
            record_bytes: 4,
            ..Limits::default()
        };
        let mut output = Vec::new();
        let mut writer = Records::new(plain(&mut output), OutputFormat::Array, &limits);
        writer.add(|record| record.string("ab")).unwrap();
        let error = writer.add(|record| record.string("abc")).unwrap_err();
        assert!(matches!(error, ConvertError::Rejected(r) if r.reason == Reason::RecordTooLarge));
    }
}
