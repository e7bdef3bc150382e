//! Where two lists of JSON values differ, for people: line by line, each value as it is written for them, with its number.
//!
//! Values are the same when they have the same keys in the same order and the same text for every number: 79.90 is not 79.9.

use std::{
    fmt,
    io::{self, Write},
    time::{Duration, Instant},
};

use anyhow::anyhow;
use clap::builder::styling::{AnsiColor, Style};
use serde_json::Value;
use similar::{Algorithm, DiffOp, DiffTag, capture_diff_slices_deadline, group_diff_ops};

use super::text::escaped;
use crate::failure::Failure;

/// Lines of the same before and after those that differ.
const CONTEXT: usize = 3;

/// Lines of one difference that are shown.
const SHOWN: usize = 60;

pub const GOOD: Style = AnsiColor::Green.on_default();
pub const BAD: Style = AnsiColor::Red.on_default();
const PLAIN: Style = Style::new();

/// How long the shortest difference is looked for; after that a longer one will do.
const PATIENCE: Duration = Duration::from_secs(2);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Says of which value the following lines are.
    Heading,
    Same,
    Expected,
    Found,
}

/// A line of the difference.
pub type Line = (Kind, String);

/// The lines of some values.
struct Lines {
    lines: Vec<String>,
    /// Which line each value begins with.
    starts: Vec<usize>,
}

impl Lines {
    fn of(values: &[Value]) -> Self {
        let (mut lines, mut starts) = (Vec::new(), Vec::new());
        for value in values {
            starts.push(lines.len());
            lines.extend(format!("{value:#}").lines().map(str::to_owned));
        }
        Self { lines, starts }
    }

    /// The number of the value that the line is of, the first being 1.
    fn value(&self, line: usize) -> usize {
        self.starts.partition_point(|start| *start <= line)
    }

    /// Whether a value begins with the line, or all of them end before it.
    fn is_start(&self, line: usize) -> bool {
        line == self.lines.len() || self.starts.binary_search(&line).is_ok()
    }
}

/// What differs; empty when nothing does. `what` is what a value is called.
pub fn diff(what: &str, expected: &[Value], found: &[Value]) -> Vec<Line> {
    let (expected, found) = (Lines::of(expected), Lines::of(found));
    let ops = capture_diff_slices_deadline(
        Algorithm::Myers,
        &expected.lines,
        &found.lines,
        Some(Instant::now() + PATIENCE),
    );
    let mut told = Vec::new();
    for group in group_diff_ops(ops, CONTEXT) {
        let lines: Vec<_> = group
            .iter()
            .flat_map(|op| with_values(op, &expected, &found))
            .collect();
        let mut last = None;
        for (which, line) in &lines {
            // Lines of a neighbour in which nothing differs would only confuse.
            let differs =
                |(other, (kind, _)): &(Which, Line)| other == which && *kind != Kind::Same;
            if !lines.iter().any(differs) {
                continue;
            }
            if last.replace(which) != Some(which) {
                told.push((Kind::Heading, which.heading(what)));
            }
            told.push(line.clone());
        }
    }
    told
}

/// The value that a line is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Which {
    /// Its number among those found.
    Found(usize),
    /// Its number among those expected; it was not found.
    Missing(usize),
}

impl Which {
    fn heading(self, what: &str) -> String {
        match self {
            Self::Found(number) => format!("{what} {number}"),
            Self::Missing(number) => format!("{what} {number} of those expected is missing"),
        }
    }
}

fn with_values(op: &DiffOp, expected: &Lines, found: &Lines) -> Vec<(Which, Line)> {
    let (tag, old, new) = op.as_tag_tuple();
    let kind = match tag {
        DiffTag::Equal => Kind::Same,
        _ => Kind::Found,
    };
    let are_found = new.clone().map(|line| {
        let text = found.lines[line].clone();
        (Which::Found(found.value(line)), (kind, text))
    });
    if tag == DiffTag::Equal {
        return are_found.collect();
    }
    let is_missing =
        tag == DiffTag::Delete && expected.is_start(old.start) && expected.is_start(old.end);
    let were_expected = old.map(|line| {
        let which = match is_missing {
            true => Which::Missing(expected.value(line)),
            false => Which::Found(found.value(new.start)),
        };
        (which, (Kind::Expected, expected.lines[line].clone()))
    });
    were_expected.chain(are_found).collect()
}

/// Prints a difference, coloured on a terminal.
pub fn show(lines: &[Line]) -> Result<(), Failure> {
    for (kind, text) in &lines[..lines.len().min(SHOWN)] {
        match kind {
            Kind::Heading => print(PLAIN, format_args!("    "), text),
            Kind::Same => print(PLAIN, format_args!("      "), text),
            Kind::Expected => print_all(BAD, "    - ", text),
            Kind::Found => print_all(GOOD, "    + ", text),
        }?;
    }
    match lines.len().saturating_sub(SHOWN) {
        0 => Ok(()),
        more => print(
            PLAIN,
            format_args!("    "),
            &format!("and {more} more lines"),
        ),
    }
}

/// A line whose beginning is coloured.
pub fn print(style: Style, begin: fmt::Arguments<'_>, text: &str) -> Result<(), Failure> {
    let text = escaped(text);
    written(writeln!(
        anstream::stdout(),
        "{style}{begin}{style:#}{text}"
    ))
}

/// A line that is coloured as a whole.
fn print_all(style: Style, begin: &str, text: &str) -> Result<(), Failure> {
    let text = escaped(text);
    written(writeln!(
        anstream::stdout(),
        "{style}{begin}{text}{style:#}"
    ))
}

/// That nobody reads it any more is no failure.
fn written(result: io::Result<()>) -> Result<(), Failure> {
    match result {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(Failure::service(
            anyhow!(error).context("write to standard output"),
        )),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(expected: &str, found: &str) -> String {
        let values = |text: &str| -> Vec<Value> { serde_json::from_str(text).unwrap() };
        let mark = |(kind, line)| match kind {
            Kind::Heading => format!("@ {line}\n"),
            Kind::Same => format!("  {line}\n"),
            Kind::Expected => format!("- {line}\n"),
            Kind::Found => format!("+ {line}\n"),
        };
        let lines = diff("record", &values(expected), &values(found));
        lines.into_iter().map(mark).collect()
    }

    #[test]
    fn the_same_json_is_the_same_however_it_is_laid_out() {
        assert_eq!(
            text(
                "[{\"a\": 1.0,\n\"b\":\"\\u00e9\"}]",
                r#"[{"a":1.0,"b":"é"}]"#
            ),
            ""
        );
        assert_eq!(text("[]", "[]"), "");
    }

    #[test]
    fn order_of_keys_and_digits_of_numbers_differ() {
        assert_ne!(text(r#"[{"a":1,"b":2}]"#, r#"[{"b":2,"a":1}]"#), "");
        assert_eq!(text("[79.90]", "[79.9]"), "@ record 1\n- 79.90\n+ 79.9\n");
        assert_ne!(text("[1e2]", "[100]"), "");
        assert_ne!(text(r#"["1"]"#, "[1]"), "");
    }

    #[test]
    fn each_place_has_the_number_of_its_record_and_some_lines_around() {
        let record = |sku: usize, price: &str| {
            format!(r#"{{"sku":{sku},"b":0,"c":0,"price":{price},"d":0,"e":0,"f":0,"g":0}}"#)
        };
        let list = |prices: &[&str]| {
            let records: Vec<_> = (1..)
                .zip(prices)
                .map(|(sku, price)| record(sku, price))
                .collect();
            format!("[{}]", records.join(","))
        };
        assert_eq!(
            text(&list(&["1", "2", "3"]), &list(&["1", "7", "3"])),
            "@ record 2\n    \"sku\": 2,\n    \"b\": 0,\n    \"c\": 0,\n-   \"price\": 2,\n+   \"price\": 7,\n    \"d\": 0,\n    \"e\": 0,\n    \"f\": 0,\n"
        );
    }

    #[test]
    fn records_that_are_missing_or_new_or_near_each_other_keep_their_numbers() {
        let more = text("[1,2]", "[1,5,2,9]");
        assert_eq!(more, "@ record 2\n+ 5\n@ record 4\n+ 9\n");
        let missing =
            |number| format!("@ record {number} of those expected is missing\n- {number}\n");
        assert_eq!(text("[1,2,3]", "[1,3]"), missing(2));
        assert_eq!(text("[1]", "[]"), missing(1));
        assert_eq!(
            text(r#"[{"a":1},{"a":2}]"#, r#"[{"a":3},{"a":2},{"b":1}]"#),
            "@ record 1\n  {\n-   \"a\": 1\n+   \"a\": 3\n  }\n@ record 3\n+ {\n+   \"b\": 1\n+ }\n"
        );
    }
}
