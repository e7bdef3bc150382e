//! How a CSV file is written: what the feed says of it, and what its first rows show of the rest.

use std::collections::HashSet;

use csv_core::{ReadRecordResult, Reader, ReaderBuilder};

use crate::feed::reject::{Reason, Rejection};
use crate::feed::spec::{CsvSpec, Format};

/// In the order in which they are tried, which decides nothing.
const DELIMITERS: [u8; 4] = [b',', b';', b'\t', b'|'];

/// What is wrong with a `csv` table.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DialectError {
    #[error("`{0}` is {1:?}; expected one ASCII character that is no line end")]
    NotACharacter(&'static str, String),
    #[error("`delimiter`, `quote` and `comment` have to differ")]
    NotDistinct,
    #[error("without a header, `columns` has to name the columns")]
    NoNames,
    #[error("a name in `columns` is empty")]
    EmptyName,
    #[error("`columns` has the name {0:?} twice")]
    NameTwice(String),
}

/// What a feed says about its CSV files, checked.
#[derive(Debug)]
pub struct GivenDialect {
    delimiter: Option<u8>,
    /// The inner option is `None` where nothing is quoted.
    quote: Option<Option<u8>>,
    comment: Option<u8>,
    pub has_header: bool,
    pub columns: Vec<String>,
    pub trim: bool,
}

/// All that is needed to tell one cell from the next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Dialect {
    pub delimiter: u8,
    pub quote: Option<u8>,
    pub comment: Option<u8>,
}

/// The first rows of a file as a dialect has them.
#[derive(Debug)]
struct Shape {
    dialect: Dialect,
    rows: usize,
    /// Cells of the first row.
    columns: usize,
    /// Rows with as many cells as the first one, itself included.
    agreeing: usize,
    /// Whether what follows a closing quote is always the end of the cell.
    is_well_quoted: bool,
}

/// The first bytes of a file.
#[derive(Clone, Copy)]
pub struct Head<'a> {
    pub bytes: &'a [u8],
    /// Whether the file ends with them.
    pub is_whole: bool,
}

/// A first line `sep=;`, which Excel writes and reads, and then shows as no row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SepLine {
    pub delimiter: u8,
    /// Bytes of the line without its end.
    pub bytes: usize,
}

impl<'a> Head<'a> {
    pub fn sep_line(self) -> Option<SepLine> {
        let end = memchr::memchr2(b'\n', b'\r', self.bytes);
        let line = &self.bytes[..end.unwrap_or(self.bytes.len())];
        // Some programs quote it like a cell.
        let quoted = line
            .strip_prefix(b"\"")
            .and_then(|line| line.strip_suffix(b"\""));
        match quoted.unwrap_or(line) {
            [
                b's' | b'S',
                b'e' | b'E',
                b'p' | b'P',
                b'=',
                delimiter @ 1..=127,
            ] => Some(SepLine {
                delimiter: *delimiter,
                bytes: line.len(),
            }),
            _ => None,
        }
    }

    fn without_sep_line(self) -> Self {
        let bytes = self.sep_line().map_or(0, |line| line.bytes);
        Self {
            bytes: &self.bytes[bytes..],
            ..self
        }
    }
}

impl GivenDialect {
    pub fn compile(format: Format, spec: &CsvSpec) -> Result<Self, DialectError> {
        let tab = (format == Format::Tsv).then_some('\t');
        let given = Self {
            delimiter: byte("delimiter", spec.delimiter.or(tab))?,
            quote: match spec.quote.as_deref() {
                None => None,
                Some("") => Some(None),
                Some(quote) => Some(Some(only_byte("quote", quote)?)),
            },
            comment: byte("comment", spec.comment)?,
            has_header: spec.header,
            columns: spec.columns.clone(),
            trim: spec.trim,
        };
        let said: Vec<u8> = [given.delimiter, given.quote.flatten(), given.comment]
            .into_iter()
            .flatten()
            .collect();
        if said.iter().collect::<HashSet<_>>().len() < said.len() {
            return Err(DialectError::NotDistinct);
        }
        if !spec.header && spec.columns.is_empty() {
            return Err(DialectError::NoNames);
        }
        let mut seen = HashSet::new();
        for name in &spec.columns {
            if name.is_empty() {
                return Err(DialectError::EmptyName);
            }
            if !seen.insert(name) {
                return Err(DialectError::NameTwice(name.clone()));
            }
        }
        Ok(given)
    }

    /// Whether a text of which nothing else is known is CSV: it has two rows at least and all rows seen agree. One line of
    /// text with a comma in it may be anything, an error message for one. A line that names the delimiter is enough.
    pub fn fits(&self, head: Head<'_>) -> bool {
        let mut shapes = self.shapes(self.delimiter, head);
        head.sep_line().is_some()
            || shapes
                .any(|shape| shape.columns > 1 && shape.rows > 1 && shape.agreeing == shape.rows)
    }

    /// The dialect of a file that is said to be CSV: what the feed says, and for the rest what most of the first rows agree on.
    pub fn complete(&self, head: Head<'_>) -> Result<Dialect, Box<Rejection>> {
        let delimiter = self.delimiter_of(head);
        if let (Some(delimiter), Some(quote)) = (delimiter, self.quote) {
            return Ok(self.dialect(delimiter, quote));
        }
        let head = head.without_sep_line();
        let shapes: Vec<_> = self.shapes(delimiter, head).collect();
        let rank = |shape: &&Shape| {
            let share = shape.agreeing * 1_000 / shape.rows.max(1);
            (share, shape.is_well_quoted, shape.columns)
        };
        let is_candidate = |shape: &&Shape| {
            delimiter.is_some() || shape.columns > 1 && shape.agreeing * 2 >= shape.rows
        };
        let mut candidates: Vec<_> = shapes.iter().filter(is_candidate).collect();
        candidates.sort_by_key(rank);
        let unknown = |message: String| {
            Err(Rejection::because(Reason::UnknownDialect, message).with_excerpt(head.bytes))
        };
        match candidates[..] {
            [.., second, best] if rank(&best) == rank(&second) => unknown(format!(
                "{:?} and {:?} are equally likely delimiters; `csv.delimiter` can say which it is",
                char::from(second.dialect.delimiter),
                char::from(best.dialect.delimiter)
            )),
            [.., best] => Ok(best.dialect),
            // A list of single values has no delimiter, so that any will do.
            [] if shapes.iter().all(|shape| shape.columns <= 1) => {
                Ok(self.dialect(DELIMITERS[0], self.quote_with(DELIMITERS[0], head)))
            }
            [] => unknown(
                "the first rows agree on none of the delimiters `,`, `;`, tab and `|`; `csv.delimiter` can name another one".to_owned(),
            ),
        }
    }

    fn dialect(&self, delimiter: u8, quote: Option<u8>) -> Dialect {
        Dialect {
            delimiter,
            quote,
            comment: self.comment,
        }
    }

    /// The delimiter that the feed says, or else the file.
    fn delimiter_of(&self, head: Head<'_>) -> Option<u8> {
        let declared = || head.sep_line().map(|line| line.delimiter);
        self.delimiter
            .or_else(|| declared().filter(|delimiter| self.is_possible(*delimiter)))
    }

    fn is_possible(&self, delimiter: u8) -> bool {
        Some(delimiter) != self.comment && Some(delimiter) != self.quote.flatten()
    }

    /// The first rows with the delimiter, or with each that there may be.
    fn shapes(&self, delimiter: Option<u8>, head: Head<'_>) -> impl Iterator<Item = Shape> {
        let delimiters = match delimiter {
            Some(delimiter) => vec![delimiter],
            None => DELIMITERS
                .into_iter()
                .filter(|delimiter| self.is_possible(*delimiter))
                .collect(),
        };
        delimiters.into_iter().map(move |delimiter| {
            let quote = self.quote_with(delimiter, head);
            Shape::of(head, self.dialect(delimiter, quote))
        })
    }

    /// An apostrophe is a quote only where it stands around cells and `"` does not: it begins words, too.
    fn quote_with(&self, delimiter: u8, head: Head<'_>) -> Option<u8> {
        if let Some(quote) = self.quote {
            return quote;
        }
        let is_edge = |byte: Option<&u8>| {
            byte.is_none_or(|byte| *byte == delimiter || matches!(byte, b'\n' | b'\r'))
        };
        let (mut double, mut opened, mut closed) = (0, 0, 0);
        for (at, byte) in head.bytes.iter().enumerate() {
            let begins = is_edge(at.checked_sub(1).and_then(|before| head.bytes.get(before)));
            match byte {
                b'"' => double += usize::from(begins),
                b'\'' => {
                    opened += usize::from(begins);
                    closed += usize::from(is_edge(head.bytes.get(at + 1)));
                }
                _ => {}
            }
        }
        let is_single = double == 0 && opened > 0 && opened == closed;
        let quote = if is_single { b'\'' } else { b'"' };
        (Some(quote) != self.comment && quote != delimiter).then_some(quote)
    }
}

impl Dialect {
    /// Lines that are comments are not its business.
    pub fn reader(self) -> Reader {
        self.builder().build()
    }

    /// A delimiter that is none leaves cells that begin with a quote and end behind it.
    fn is_well_quoted(self, head: Head<'_>) -> bool {
        let Some(quote) = self.quote else {
            return true;
        };
        let ends_cell = |byte: u8| byte == self.delimiter || matches!(byte, b'\n' | b'\r');
        let (mut at, mut begins) = (0, true);
        while let Some(&byte) = head.bytes.get(at) {
            at += 1;
            if !(begins && byte == quote) {
                begins = ends_cell(byte);
                continue;
            }
            // To the closing quote; a doubled one is text.
            loop {
                let Some(closing) = memchr::memchr(quote, &head.bytes[at..]) else {
                    return !head.is_whole;
                };
                at += closing + 1;
                match head.bytes.get(at) {
                    Some(next) if *next == quote => at += 1,
                    Some(next) if !ends_cell(*next) => return false,
                    _ => break,
                }
            }
            begins = false;
        }
        true
    }

    fn builder(self) -> ReaderBuilder {
        let mut builder = ReaderBuilder::new();
        builder.delimiter(self.delimiter);
        match self.quote {
            Some(quote) => builder.quote(quote),
            None => builder.quoting(false),
        };
        builder
    }
}

impl Shape {
    fn of(head: Head<'_>, dialect: Dialect) -> Self {
        let mut reader = dialect.builder().comment(dialect.comment).build();
        let mut shape = Self {
            dialect,
            rows: 0,
            columns: 0,
            agreeing: 0,
            is_well_quoted: dialect.is_well_quoted(head),
        };
        let mut text = vec![0; head.bytes.len()];
        let mut ends = vec![0; head.bytes.len() + 1];
        let mut rest = head.bytes;
        let mut cells = 0;
        loop {
            let (result, taken, _, ended) = reader.read_record(rest, &mut text, &mut ends[cells..]);
            cells += ended;
            let is_cut = rest.is_empty();
            rest = &rest[taken..];
            match result {
                // What is left of a row that the head does not hold counts only when there is no other.
                ReadRecordResult::InputEmpty if head.is_whole || shape.rows == 0 => {}
                ReadRecordResult::Record if !is_cut || head.is_whole || shape.rows == 0 => {
                    shape.add(cells);
                    cells = 0;
                }
                _ => return shape,
            }
        }
    }

    fn add(&mut self, cells: usize) {
        if self.rows == 0 {
            self.columns = cells;
        }
        self.rows += 1;
        self.agreeing += usize::from(cells == self.columns);
    }
}

fn byte(setting: &'static str, given: Option<char>) -> Result<Option<u8>, DialectError> {
    given
        .map(|c| only_byte(setting, c.encode_utf8(&mut [0; 4])))
        .transpose()
}

fn only_byte(setting: &'static str, text: &str) -> Result<u8, DialectError> {
    match text.as_bytes() {
        [byte] if byte.is_ascii() && !matches!(byte, b'\n' | b'\r' | 0) => Ok(*byte),
        _ => Err(DialectError::NotACharacter(setting, text.to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn given(toml: &str) -> Result<GivenDialect, DialectError> {
        GivenDialect::compile(Format::Csv, &toml::from_str(toml).unwrap())
    }

    fn head(text: &str) -> Head<'_> {
        Head {
            bytes: text.as_bytes(),
            is_whole: true,
        }
    }

    fn sniffed(text: &str) -> Result<(char, char), Reason> {
        let dialect = given("").unwrap().complete(head(text));
        dialect
            .map(|found| {
                let quote = found.quote.map_or('-', char::from);
                (found.delimiter.into(), quote)
            })
            .map_err(|rejection| rejection.reason)
    }

    #[test]
    fn a_delimiter_within_quotes_is_not_as_likely_as_one_between_them() {
        for (text, delimiter) in [
            ("\"\";\"|\"\n\"\";\"\"\n", b';'),
            ("\"a,b\"|\"c\"\n\"\"|\"\"\n", b'|'),
            ("\"a \"\"b\"\"\";\",\"\n\"\";\"\"\n", b';'),
        ] {
            let found = given("").unwrap().complete(head(text)).unwrap();
            assert_eq!(found.delimiter, delimiter, "{text}");
        }
    }

    #[test]
    fn the_delimiter_is_the_one_that_the_rows_agree_on() {
        for (text, delimiter) in [
            ("a,b\n1,2\n", ','),
            ("a;b;c\n1,5;2,5;x\n3;4;y", ';'),
            ("a\tb\r\n1, 2\tx\r\n", '\t'),
            ("a|b", '|'),
            ("\"a;b;c\",d\n1,\"x;y;z\"\n", ','),
            ("name;text\nx;\"one, two\nthree, four\"\ny;z\n", ';'),
            ("a;b;c\n1;2;3\n1;2\n1;2;3\n1;2;3", ';'),
            ("ids\n1\n2\n", ','),
        ] {
            assert_eq!(sniffed(text), Ok((delimiter, '"')), "{text}");
        }
        assert_eq!(sniffed("a,b;c\n1,2;3\n"), Err(Reason::UnknownDialect));
        assert_eq!(sniffed("a,b\n1\n2\n3\n"), Err(Reason::UnknownDialect));
    }

    #[test]
    fn an_apostrophe_is_a_quote_only_where_it_stands_around_cells() {
        assert_eq!(sniffed("'a','b'\n'x, y','z'"), Ok((',', '\'')));
        assert_eq!(
            sniffed("city,shop\n's-Hertogenbosch,the boys\n"),
            Ok((',', '"'))
        );
        assert_eq!(sniffed("a,b\n'x',\"y\"\n"), Ok((',', '"')));
    }

    #[test]
    fn a_first_line_that_says_the_delimiter_is_followed_where_the_feed_does_not_say_it() {
        for line in ["sep=|\n", "SEP=|\r\n", "\"sep=|\"\n"] {
            let text = format!("{line}a,b|c\n1,2|3\n");
            assert_eq!(sniffed(&text), Ok(('|', '"')), "{text}");
        }
        assert_eq!(sniffed("sep=\t\nids\n1\n"), Ok(('\t', '"')));
        for text in ["sep=,;\na;b\n", "sep=\na;b\n", "separator=,\na;b\n"] {
            assert_eq!(head(text).sep_line(), None, "{text}");
        }
        let complete = |toml| given(toml).unwrap().complete(head("sep=|\na;b\n1;2\n"));
        assert_eq!(complete("delimiter = ';'").unwrap().delimiter, b';');
        assert_eq!(complete("comment = '|'").unwrap().delimiter, b';');
        assert!(given("").unwrap().fits(head("sep=;\na;b\n1;2\n")));
    }

    #[test]
    fn a_row_that_the_head_cuts_does_not_count() {
        let mut text = "a;b;c\n1;2;3\n".to_owned();
        text.push_str("1,2,3,4");
        let head = |is_whole| Head {
            bytes: text.as_bytes(),
            is_whole,
        };
        assert!(given("").unwrap().fits(head(false)));
        assert!(!given("").unwrap().fits(head(true)));
    }

    #[test]
    fn only_rows_that_all_agree_make_an_unknown_text_csv() {
        let fits = |toml: &str, text: &str| {
            given(toml).unwrap().fits(Head {
                bytes: text.as_bytes(),
                is_whole: true,
            })
        };
        assert!(fits("", "a;b\n1;2"));
        assert!(fits("comment = '#'", "# x\na;b\n#\n1;2"));
        assert!(!fits("", "Service unavailable, try again\n"));
        assert!(!fits("", "a;b\n1;2\n3\n"));
        assert!(!fits("", "one\ntwo\n"));
        assert!(!fits("delimiter = ','", "a;b\n1;2"));
    }

    #[test]
    fn a_table_that_cannot_be_followed_is_refused() {
        use DialectError::*;
        for (toml, error) in [
            (
                "delimiter = 'é'",
                NotACharacter("delimiter", "é".to_owned()),
            ),
            (
                "delimiter = \"\\n\"",
                NotACharacter("delimiter", "\n".to_owned()),
            ),
            ("quote = \"''\"", NotACharacter("quote", "''".to_owned())),
            ("quote = ';'\ndelimiter = ';'", NotDistinct),
            ("comment = ';'\ndelimiter = ';'", NotDistinct),
            ("header = false", NoNames),
            ("columns = ['a', '']", EmptyName),
            ("columns = ['a', 'b', 'a']", NameTwice("a".to_owned())),
        ] {
            assert_eq!(given(toml).unwrap_err(), error, "{toml}");
        }
    }
}
