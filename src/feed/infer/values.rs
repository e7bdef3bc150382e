//! What the values of one path have in common.
//!
//! A type is a promise about files nobody has seen yet, and a value that breaks it refuses its file. So it is given only where every
//! value seen has it, written as the type would write it, so that nothing is lost: no leading zeros, no plus signs, no
//! identifiers.

use std::collections::HashSet;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::LazyLock;

use super::{names, toml};
use crate::feed::fields::DateFormat;
use crate::feed::spec::{ValueSpec, ValueType};

/// What is kept of a value while it is read. A longer one is text.
const MAX_TEXT_BYTES: usize = 256;

/// Different values that are counted of one path.
const MAX_DIFFERENT: usize = 100;

/// Values that a type is given for.
const MIN_TYPED: u64 = 3;

/// Digits that every reader of JSON keeps (a double has 15).
const MAX_DIGITS: usize = 15;

/// The beginning of a text, and what is known of the rest.
#[derive(Debug, Default)]
pub struct Text {
    head: String,
    bytes: u64,
    is_cut: bool,
    has_content: bool,
    begins_with_space: bool,
    ends_with_space: bool,
}

impl Text {
    pub fn push(&mut self, piece: &str) {
        let (Some(first), Some(last)) = (piece.chars().next(), piece.chars().next_back()) else {
            return;
        };
        if self.bytes == 0 {
            self.begins_with_space = first.is_whitespace();
        }
        self.ends_with_space = last.is_whitespace();
        self.has_content |= !piece.trim().is_empty();
        self.bytes += piece.len() as u64;
        // The content is what is of interest, not the indentation before it.
        let piece = match self.head.is_empty() {
            true => piece.trim_start(),
            false => piece,
        };
        let room = MAX_TEXT_BYTES.saturating_sub(self.head.len());
        let end = (0..=room.min(piece.len())).rfind(|&end| piece.is_char_boundary(end));
        let kept = &piece[..end.unwrap_or(0)];
        self.is_cut |= kept.len() < piece.len();
        self.head.push_str(kept);
    }

    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    pub fn is_blank(&self) -> bool {
        !self.has_content
    }

    /// The value without white space around it, if all of it was kept.
    fn whole(&self) -> Option<&str> {
        (!self.is_cut).then(|| self.head.trim_end())
    }
}

/// What a value may be taken for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Guess {
    Boolean,
    Integer,
    Decimal,
    /// A number that is no quantity: it has a check digit.
    Gtin,
    /// By its form; `None` is ISO 8601.
    Date(Option<&'static str>),
}

/// Days that look like numbers, and are taken for days only where the name says so.
const COMPACT_DATE: Guess = Guess::Date(Some("%Y%m%d"));

/// In the order in which they are preferred.
const GUESSES: [Guess; 15] = [
    Guess::Boolean,
    Guess::Gtin,
    Guess::Integer,
    Guess::Decimal,
    Guess::Date(None),
    COMPACT_DATE,
    Guess::Date(Some("%d.%m.%Y")),
    Guess::Date(Some("%d.%m.%Y %H:%M")),
    Guess::Date(Some("%d.%m.%Y %H:%M:%S")),
    Guess::Date(Some("%Y/%m/%d")),
    Guess::Date(Some("%a, %d %b %Y %H:%M:%S %z")),
    Guess::Date(Some("%d/%m/%Y")),
    Guess::Date(Some("%m/%d/%Y")),
    Guess::Date(Some("%d-%m-%Y")),
    Guess::Date(Some("%m-%d-%Y")),
];

/// Which of the two it is only a day after the twelfth shows.
const AMBIGUOUS: [[&str; 2]; 2] = [["%d/%m/%Y", "%m/%d/%Y"], ["%d-%m-%Y", "%m-%d-%Y"]];

/// What reads each of [`GUESSES`] that is a date.
static DATES: LazyLock<Vec<Option<DateFormat>>> = LazyLock::new(|| {
    let compile = |guess: &Guess| match guess {
        Guess::Date(form) => {
            let from: Vec<_> = form.iter().map(|&form| form.to_owned()).collect();
            DateFormat::compile(&from, None).ok()
        }
        _ => None,
    };
    GUESSES.iter().map(compile).collect()
});

#[derive(Debug, Default)]
pub struct Values {
    /// How many have something in them besides white space.
    pub filled: u64,
    /// How many were JSON strings, and how many numbers or booleans.
    pub strings: u64,
    pub literals: u64,
    pub nulls: u64,
    /// The beginning of one, as a comment shows it.
    example: Option<String>,
    /// Hashes of the different ones, up to a bound.
    different: HashSet<u64>,
    /// One came again before there were too many to tell.
    has_twins: bool,
    /// White space stands around one.
    is_spaced: bool,
    /// The guesses that did not fit a value, as bits.
    refuted: u16,
}

impl Values {
    pub fn add(&mut self, text: &Text) {
        self.is_spaced |= text.begins_with_space || text.ends_with_space;
        if text.is_blank() {
            return;
        }
        self.count(&text.head, true);
        for (index, guess) in GUESSES.iter().enumerate() {
            let bit = 1 << index;
            if self.refuted & bit == 0 && !text.whole().is_some_and(|text| guess.fits(index, text))
            {
                self.refuted |= bit;
            }
        }
    }

    /// JSON says of which type a value is.
    pub fn add_json(&mut self, text: &str, is_string: bool) {
        match (is_string, text) {
            (false, "null") => self.nulls += 1,
            (false, _) => self.literals += 1,
            (true, _) => self.strings += 1,
        }
        if is_string && text.trim().is_empty() || !is_string && text == "null" {
            return;
        }
        let mut kept = Text::default();
        kept.push(text);
        self.count(&kept.head, is_string);
    }

    fn count(&mut self, head: &str, is_text: bool) {
        self.filled += 1;
        self.example.get_or_insert_with(|| match is_text {
            true => toml::quoted(head),
            false => head.to_owned(),
        });
        if self.different.len() < MAX_DIFFERENT {
            let mut hasher = DefaultHasher::new();
            head.hash(&mut hasher);
            self.has_twins |= !self.different.insert(hasher.finish());
        }
    }

    pub fn unite(&mut self, other: Self) {
        self.filled += other.filled;
        self.strings += other.strings;
        self.literals += other.literals;
        self.nulls += other.nulls;
        self.example = self.example.take().or(other.example);
        let sum = self.different.len() + other.different.len();
        self.different.extend(other.different);
        self.has_twins |= other.has_twins || self.different.len() < sum;
        self.is_spaced |= other.is_spaced;
        self.refuted |= other.refuted;
    }

    /// One of them, or nothing.
    pub fn example(&self) -> &str {
        self.example.as_deref().unwrap_or_default()
    }

    /// How many different ones there are, `None` when they are too many to count.
    pub fn different(&self) -> Option<usize> {
        (self.different.len() < MAX_DIFFERENT).then_some(self.different.len())
    }

    /// Whether each was another one, as far as that was looked at.
    pub fn all_differ(&self) -> bool {
        !self.has_twins
    }

    /// Whether both JSON strings and other values were seen.
    pub fn are_of_several_types(&self) -> bool {
        self.strings > 0 && self.literals > 0
    }

    /// How the value at `path` is taken; `name` is what it is called.
    pub fn spec(&self, path: String, name: &str) -> ValueSpec {
        let guess = self.guess(name);
        let (kind, form) = match guess {
            None | Some(Guess::Gtin) => (None, None),
            Some(Guess::Boolean) => (Some(ValueType::Boolean), None),
            Some(Guess::Integer) => (Some(ValueType::Integer), None),
            Some(Guess::Decimal) => (Some(ValueType::Decimal), None),
            Some(Guess::Date(form)) => (Some(ValueType::Date), form),
        };
        ValueSpec {
            kind,
            from: form.map(str::to_owned).into_iter().collect(),
            // All types but strings are read without it anyway.
            trim: self.is_spaced && kind.is_none(),
            ..ValueSpec::at(path)
        }
    }

    fn guess(&self, name: &str) -> Option<Guess> {
        if self.filled < MIN_TYPED || self.strings + self.literals + self.nulls > 0 {
            return None;
        }
        let fits = |guess| {
            let index = GUESSES.iter().position(|&other| other == guess);
            index.is_some_and(|index| self.refuted & 1 << index == 0)
        };
        let guess = GUESSES.into_iter().find(|&guess| fits(guess))?;
        match guess {
            Guess::Gtin => None,
            Guess::Integer | Guess::Decimal if names::is_identifier(name) => None,
            Guess::Integer if fits(COMPACT_DATE) => names::is_date(name).then_some(COMPACT_DATE),
            Guess::Date(Some(form)) => {
                let is_open = |forms: &[&'static str; 2]| {
                    forms.contains(&form) && forms.iter().all(|form| fits(Guess::Date(Some(form))))
                };
                (!AMBIGUOUS.iter().any(is_open)).then_some(guess)
            }
            guess => Some(guess),
        }
    }
}

impl Guess {
    fn fits(self, index: usize, text: &str) -> bool {
        match self {
            Self::Boolean => {
                text.eq_ignore_ascii_case("true") || text.eq_ignore_ascii_case("false")
            }
            Self::Integer => is_number(text, false),
            Self::Decimal => is_number(text, true),
            Self::Gtin => is_gtin(text),
            Self::Date(None) => is_extended(text) && is_date(index, text),
            Self::Date(Some(_)) => is_date(index, text),
        }
    }
}

/// Whether JSON would write the number with the same characters.
fn is_number(text: &str, may_have_fraction: bool) -> bool {
    let number = text.strip_prefix('-').unwrap_or(text);
    let (whole, fraction) = match number.split_once('.') {
        Some((whole, fraction)) if may_have_fraction => (whole, Some(fraction)),
        _ => (number, None),
    };
    let is_digits =
        |digits: &str| !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    is_digits(whole)
        && fraction.is_none_or(is_digits)
        && (whole == "0" || !whole.starts_with('0'))
        && text != "-0"
        && whole.len() + fraction.map_or(0, str::len) <= MAX_DIGITS
}

/// GTIN-8, 12, 13 or 14, by length and check digit (GS1 General Specifications, section 7.9).
fn is_gtin(text: &str) -> bool {
    let is_digits = text.bytes().all(|byte| byte.is_ascii_digit());
    let weighted = text.bytes().rev().enumerate().map(|(index, digit)| {
        let weight = if index % 2 == 1 { 3 } else { 1 };
        u32::from(digit - b'0') * weight
    });
    is_digits && matches!(text.len(), 8 | 12..=14) && weighted.sum::<u32>() % 10 == 0
}

/// `2026-11-21`, with a time or without.
fn is_extended(text: &str) -> bool {
    text.as_bytes().get(4) == Some(&b'-')
}

/// Whether a date of our time stands there: a form may read `1.2.26` as a day in the year 26.
fn is_date(index: usize, text: &str) -> bool {
    let has_digit = text.bytes().any(|byte| byte.is_ascii_digit());
    let format = has_digit.then(|| DATES[index].as_ref()).flatten();
    let iso = format.and_then(|format| format.convert(text));
    iso.and_then(|iso| iso.get(..5)?.strip_suffix('-')?.parse::<u32>().ok())
        .is_some_and(|year| (1500..2500).contains(&year))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values(texts: &[&str]) -> Values {
        let mut values = Values::default();
        for text in texts {
            let mut kept = Text::default();
            kept.push(text);
            values.add(&kept);
        }
        values
    }

    /// The type of three values or more, `from` after it.
    fn typed(name: &str, texts: &[&str]) -> String {
        let spec = values(texts).spec("p".into(), name);
        let kind = spec
            .kind
            .map_or("none".to_owned(), |kind| format!("{kind:?}").to_lowercase());
        [vec![kind], spec.from].concat().join(" ")
    }

    #[test]
    fn numbers_are_typed_only_when_nothing_is_lost() {
        assert_eq!(typed("stock", &["1", "0", "-20"]), "integer");
        assert_eq!(typed("price", &["79.90", "7", "0.5"]), "decimal");
        assert_eq!(typed("price", &[" 79.90 ", "7\n", "0.5"]), "decimal");
        for lost in [
            "007",
            "+7",
            "7.",
            ".5",
            "1e3",
            "1,5",
            "15.00 USD",
            "-0",
            "1234567890123456",
            "1 000",
        ] {
            assert_eq!(typed("price", &["1", "2", lost]), "none", "{lost}");
        }
        assert_eq!(typed("price", &["1", "2"]), "none", "too few to promise");
    }

    #[test]
    fn identifiers_stay_text_by_their_name_or_their_check_digit() {
        for name in ["id", "product_id", "gtin", "zip_code", "phone", "sku"] {
            assert_eq!(typed(name, &["1", "2", "3"]), "none", "{name}");
        }
        let gtins = ["8712626055150", "4006381333931", "73513537"];
        assert_eq!(typed("b244", &gtins), "none");
        assert_eq!(typed("b244", &["8712626055151", "1", "2"]), "integer");
    }

    #[test]
    fn dates_are_typed_when_their_form_is_clear() {
        assert_eq!(
            typed("x", &["2026-11-21", "2026-11-21T10:00Z", "2026-01-02"]),
            "date"
        );
        assert_eq!(
            typed("x", &["21.11.2026", "1.2.2026", "02.03.2026"]),
            "date %d.%m.%Y"
        );
        assert_eq!(
            typed("x", &["01/02/2026", "03/04/2026", "05/06/2026"]),
            "none"
        );
        assert_eq!(
            typed("x", &["01/02/2026", "03/04/2026", "25/06/2026"]),
            "date %d/%m/%Y"
        );
        assert_eq!(
            typed("x", &["01/02/2026", "03/04/2026", "05/26/2026"]),
            "date %m/%d/%Y"
        );
        assert_eq!(typed("x", &["01-02-2026", "3-4-2026", "5-6-2026"]), "none");
        assert_eq!(typed("x", &["1.2.26", "3.4.26", "5.6.26"]), "none");
        let compact = ["20261121", "20260102", "19991231"];
        assert_eq!(typed("pub_date", &compact), "date %Y%m%d");
        assert_eq!(typed("x", &compact), "none");
        assert_eq!(
            typed("x", &["Tue, 10 Jun 2003 04:00:00 +0000"; 3]),
            "date %a, %d %b %Y %H:%M:%S %z"
        );
        assert_eq!(
            typed("x", &["Tue, 10 Jun 2003 04:00:00 GMT"; 3]),
            "none",
            "the form could not say which zone it is"
        );
    }

    #[test]
    fn booleans_are_words() {
        assert_eq!(typed("x", &["true", "False", "true"]), "boolean");
        assert_eq!(typed("x", &["1", "0", "1"]), "integer");
        assert_eq!(typed("x", &["yes", "no", "no"]), "none");
    }

    #[test]
    fn what_is_said_in_json_stays_as_it_is() {
        let mut values = Values::default();
        for text in ["1", "2", "3"] {
            values.add_json(text, true);
        }
        assert_eq!(values.spec("p".into(), "stock").kind, None);
        assert!(!values.are_of_several_types());
        values.add_json("4", false);
        assert!(values.are_of_several_types());
        values.add_json("null", false);
        assert_eq!((values.filled, values.nulls), (4, 1));
    }

    #[test]
    fn white_space_around_text_is_trimmed_and_long_text_is_kept_short() {
        let spaced = values(&["\n   Kettle\n", "Toaster"]);
        assert!(spaced.spec("p".into(), "title").trim);
        assert_eq!(spaced.example(), "\"Kettle\"");
        assert!(!values(&["Kettle"]).spec("p".into(), "title").trim);

        let mut long = Text::default();
        for _ in 0..1_000 {
            long.push("ø1");
        }
        assert_eq!(long.bytes(), 3_000);
        assert!(long.head.len() <= MAX_TEXT_BYTES);
        assert_eq!(long.whole(), None);
    }

    #[test]
    fn different_values_are_counted_up_to_a_bound() {
        assert_eq!(values(&["a", "b", "a", ""]).different(), Some(2));
        assert!(!values(&["a", "b", "a"]).all_differ());
        let many: Vec<_> = (0..1_000).map(|n| n.to_string()).collect();
        let many: Vec<_> = many.iter().map(String::as_str).collect();
        let many = values(&many);
        assert_eq!((many.different(), many.filled), (None, 1_000));
        assert!(many.all_differ());
        assert_eq!(many.different.len(), MAX_DIFFERENT);
    }
}
