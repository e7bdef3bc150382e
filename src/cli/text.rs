//! Text for people. Keys and messages may hold anything; a terminal must not be steered by them.

use std::{
    borrow::Cow,
    io::{self, IsTerminal},
    path::Path,
};

use jiff::SignedDuration;

use crate::{feed::Rejection, topics::Millis};

/// The text with its control characters escaped.
pub fn escaped(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for c in text.chars() {
        match c.is_control() {
            true => safe.extend(c.escape_default()),
            false => safe.push(c),
        }
    }
    safe
}

/// The text for standard output: as it is where programs read it, but always on one line.
pub fn printable(text: &str) -> String {
    match io::stdout().is_terminal() || text.contains('\n') {
        true => escaped(text),
        false => text.to_owned(),
    }
}

/// The time between two moments: `1s 250ms`. Negative when the clocks of their writers disagree.
pub fn elapsed(from: Millis, to: Millis) -> String {
    let millis = to.0.saturating_sub(from.0);
    format!("{:#}", SignedDuration::from_millis(millis))
}

/// As one word of a shell's command line.
pub fn quoted(word: &str) -> Cow<'_, str> {
    let plain = |c: char| c.is_ascii_alphanumeric() || "._-:/=@".contains(c);
    match !word.is_empty() && word.chars().all(plain) {
        true => word.into(),
        false => format!("'{}'", word.replace('\'', r"'\''")).into(),
    }
}

/// Why a file, or a record of it, is refused, and where the reason stands.
pub fn refusal(path: &Path, rejection: &Rejection) -> String {
    let mut text = format!(
        "{}: {}: {}",
        path.display(),
        rejection.reason,
        rejection.message
    );
    let places = [
        ("record", rejection.record),
        ("line", rejection.line),
        ("column", rejection.column),
        ("byte", rejection.byte_offset),
    ];
    for (name, place) in places {
        text.extend(place.map(|place| format!(", {name} {place}")));
    }
    text.extend(rejection.path.as_ref().map(|path| format!(", at {path}")));
    text.extend(
        rejection
            .excerpt
            .as_ref()
            .map(|excerpt| format!("\n  {excerpt}")),
    );
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_characters_are_escaped_and_letters_are_not() {
        assert_eq!(escaped("ü\u{1b}[2J\n\u{9b}"), "ü\\u{1b}[2J\\n\\u{9b}");
    }
}
