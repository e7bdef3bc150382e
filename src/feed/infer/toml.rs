//! The configuration as text: what a person would write, with what was seen behind each line.

use toml_writer::{ToTomlKey as _, ToTomlValue as _, TomlKeyBuilder, TomlStringBuilder};

use super::draft::{Field, Shape};
use crate::feed::spec::{ValueSpec, ValueType};

/// Characters of an example in a comment.
const MAX_EXAMPLE_CHARS: usize = 40;

/// Columns up to which keys and values are aligned; longer ones stand out.
const MAX_KEY_WIDTH: usize = 60;
const MAX_VALUE_WIDTH: usize = 70;

/// A key with its value, and a comment or none.
pub struct Line {
    pub key: String,
    pub value: String,
    pub note: String,
}

impl Line {
    pub fn new(key: impl Into<String>, value: impl Into<String>, note: impl Into<String>) -> Self {
        Self {
            key: key.into(),
            value: value.into(),
            note: note.into(),
        }
    }
}

pub fn string(text: &str) -> String {
    TomlStringBuilder::new(text).as_basic().to_toml_value()
}

pub fn key(name: &str) -> String {
    TomlKeyBuilder::new(name).as_default().to_toml_key()
}

/// Text for a comment: on one line, and nothing in it that steers a terminal or an editor.
pub fn comment(text: &str) -> String {
    text.chars()
        .map(|c| if is_unprintable(c) { ' ' } else { c })
        .collect()
}

/// An example for a comment, cut.
pub fn quoted(example: &str) -> String {
    let text = comment(example);
    let mut chars = text.trim().chars();
    let mut cut: String = chars.by_ref().take(MAX_EXAMPLE_CHARS).collect();
    if chars.next().is_some() {
        cut.push('…');
    }
    format!("\"{cut}\"")
}

/// Control characters, and those that turn the direction of text.
fn is_unprintable(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{2028}' | '\u{2029}')
}

/// The lines, their values and comments in columns.
pub fn table(lines: &[Line]) -> String {
    let width = |length: fn(&Line) -> usize, most| {
        let lengths = lines.iter().map(length).filter(|length| *length <= most);
        lengths.max().unwrap_or(0)
    };
    let key_width = width(|line| line.key.chars().count(), MAX_KEY_WIDTH);
    let value_width = width(|line| line.value.chars().count(), MAX_VALUE_WIDTH);
    let mut text = String::new();
    for Line { key, value, note } in lines {
        let line = match note.is_empty() {
            true => format!("{key:key_width$} = {value}"),
            false => format!(
                "{key:key_width$} = {value:value_width$}  # {}",
                comment(note)
            ),
        };
        text.push_str(&line);
        text.push('\n');
    }
    text
}

/// The lines of `fields`, in blocks with an empty line between: one for each list of objects, whose fields have dotted keys, so
/// that each has a line and its comment.
pub fn fields(fields: &[Field]) -> String {
    let is_list = |field: &Field| matches!(field.shape, Shape::Objects { .. });
    let blocks = fields.chunk_by(|a, b| !is_list(a) && !is_list(b));
    let tables: Vec<_> = blocks
        .map(|block| {
            let mut lines = Vec::new();
            add_lines(block, "", &mut lines);
            table(&lines)
        })
        .collect();
    tables.join("\n")
}

fn add_lines(fields: &[Field], before: &str, lines: &mut Vec<Line>) {
    for Field { name, shape, note } in fields {
        let key = format!("{before}{}", key(name));
        match shape {
            Shape::Value(value) if is_bare(value) => {
                lines.push(Line::new(key, string(&value.path), note));
            }
            Shape::Value(value) => {
                let first = format!("path = {}", string(&value.path));
                lines.push(Line::new(key, inline(first, value), note));
            }
            Shape::List { each, value } => {
                let first = format!("each = {}", string(each));
                lines.push(Line::new(key, inline(first, value), note));
            }
            Shape::Objects { each, fields } => {
                lines.push(Line::new(format!("{key}.each"), string(each), note));
                add_lines(fields, &format!("{key}.fields."), lines);
            }
        }
    }
}

fn is_bare(value: &ValueSpec) -> bool {
    *value == ValueSpec::at(value.path.clone())
}

fn inline(first: String, value: &ValueSpec) -> String {
    let mut parts = vec![first];
    parts.extend(
        value
            .kind
            .map(|kind| format!("type = {}", string(type_name(kind)))),
    );
    parts.extend(
        value
            .from
            .iter()
            .map(|form| format!("from = {}", string(form))),
    );
    if value.required {
        parts.push("required = true".to_owned());
    }
    if value.trim {
        parts.push("trim = true".to_owned());
    }
    format!("{{ {} }}", parts.join(", "))
}

fn type_name(kind: ValueType) -> &'static str {
    match kind {
        ValueType::String => "string",
        ValueType::Integer => "integer",
        ValueType::Decimal => "decimal",
        ValueType::Boolean => "boolean",
        ValueType::Date => "date",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strings_and_keys_of_any_kind_are_read_back_as_they_were() {
        for text in [
            "",
            "a",
            "a b",
            "a\"b'c",
            "a\nb\u{1b}\u{7f}",
            "ø\\u",
            "#",
            "a.b",
            "'''\"\"\"",
        ] {
            let line = format!("{} = {}", key(text), string(text));
            assert!(!line.contains('\n'), "{line:?}");
            let table: ::toml::Table = ::toml::from_str(&line).expect(&line);
            assert_eq!(table.get(text), Some(&::toml::Value::from(text)));
        }
    }

    #[test]
    fn comments_stay_on_their_line_and_are_short() {
        assert_eq!(quoted(" a\nb\u{1b}\u{202e}c "), "\"a b  c\"");
        assert_eq!(
            quoted(&"ø".repeat(100)).chars().count(),
            MAX_EXAMPLE_CHARS + 3
        );
        let line = Line::new("a", "1", "x\r\ny\u{7f}");
        assert_eq!(table(&[line]), "a = 1  # x  y \n");
    }

    #[test]
    fn values_and_comments_stand_in_columns() {
        let long = format!("\"{}\"", "x".repeat(100));
        let lines = [
            Line::new("a", "\"b\"", "c"),
            Line::new("long", &long, "d"),
            Line::new("e", "\"fgh\"", ""),
            Line::new("e", "\"fgh\"", "i"),
        ];
        let expected = format!(
            "a    = \"b\"    # c\nlong = {long}  # d\ne    = \"fgh\"\ne    = \"fgh\"  # i\n"
        );
        assert_eq!(table(&lines), expected);
    }
}
