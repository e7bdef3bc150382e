//! Text to JSON by type. Numbers keep the digits they came with: they are checked, never computed.

use super::date::DateFormat;
use crate::feed::write::json_string;

/// The type of a value, compiled.
#[derive(Debug)]
pub enum Kind {
    String,
    Integer,
    Decimal,
    Boolean,
    Date(DateFormat),
}

/// A text that is not of its type.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TypeError {
    #[error("not an integer")]
    NotAnInteger,
    #[error("not a decimal number")]
    NotADecimal,
    #[error("not a boolean")]
    NotABoolean,
    #[error(
        "not a date in any of the forms it may have, or lacks a part that the output's form asks for"
    )]
    NotADate,
}

/// The JSON of `text`; white space around all but strings is passed over.
pub fn to_json(kind: &Kind, text: &str) -> Result<String, TypeError> {
    let word = text.trim();
    match kind {
        Kind::String => Ok(json_string(text)),
        Kind::Integer => integer(word).ok_or(TypeError::NotAnInteger),
        Kind::Decimal => decimal(word).ok_or(TypeError::NotADecimal),
        Kind::Boolean => boolean(word)
            .map(str::to_owned)
            .ok_or(TypeError::NotABoolean),
        Kind::Date(format) => format
            .convert(word)
            .map(|date| json_string(&date))
            .ok_or(TypeError::NotADate),
    }
}

/// Whether a word is a number the way JSON has it, so that it needs no [`to_json`]: most are, but for those with a sign or an exponent,
/// which are not looked for.
#[inline]
pub fn is_json(kind: &Kind, word: &str) -> bool {
    let has_no_zeros = matches!(
        word.as_bytes(),
        [b'1'..=b'9', ..] | [b'0'] | [b'0', b'.', ..]
    );
    has_no_zeros
        && match (kind, word.split_once('.')) {
            (Kind::Decimal, Some((whole, fraction))) => is_digits(whole) && is_digits(fraction),
            (Kind::Integer | Kind::Decimal, None) => is_digits(word),
            _ => false,
        }
}

/// Text without white space around it, which most has not in the first place.
#[inline]
pub fn trimmed(text: &str) -> &str {
    match text.as_bytes() {
        [first, .., last] if first.is_ascii_graphic() && last.is_ascii_graphic() => text,
        _ => text.trim(),
    }
}

fn integer(text: &str) -> Option<String> {
    let (sign, digits) = split_sign(text);
    is_digits(digits).then(|| format!("{sign}{}", without_zeros(digits)))
}

/// Made a JSON number (RFC 8259, section 6): no plus sign, no leading zeros, a digit before the point.
fn decimal(text: &str) -> Option<String> {
    let (sign, number) = split_sign(text);
    let (mantissa, exponent) = match number.find(['e', 'E']) {
        Some(at) => (&number[..at], &number[at..]),
        None => (number, ""),
    };
    let (whole, point, fraction) = match mantissa.split_once('.') {
        Some((whole, fraction)) => (whole, ".", fraction),
        None => (mantissa, "", ""),
    };
    let is_number = (is_digits(whole) || whole.is_empty() && !point.is_empty())
        && (is_digits(fraction) || point.is_empty())
        && (exponent.is_empty()
            || is_digits(
                exponent[1..]
                    .strip_prefix(['+', '-'])
                    .unwrap_or(&exponent[1..]),
            ));
    is_number.then(|| format!("{sign}{}{point}{fraction}{exponent}", without_zeros(whole)))
}

fn boolean(text: &str) -> Option<&'static str> {
    match text {
        "1" => Some("true"),
        "0" => Some("false"),
        _ => ["true", "false"]
            .into_iter()
            .find(|word| text.eq_ignore_ascii_case(word)),
    }
}

fn split_sign(text: &str) -> (&'static str, &str) {
    match text.strip_prefix('-') {
        Some(rest) => ("-", rest),
        None => ("", text.strip_prefix('+').unwrap_or(text)),
    }
}

fn is_digits(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

fn without_zeros(digits: &str) -> &str {
    match digits.trim_start_matches('0') {
        "" => "0",
        rest => rest,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn accepted(kind: &Kind, text: &str) -> String {
        to_json(kind, text).unwrap()
    }

    #[test]
    fn numbers_keep_their_digits_and_become_valid_json() {
        assert_eq!(accepted(&Kind::Decimal, " 79.90\n"), "79.90");
        assert_eq!(accepted(&Kind::Decimal, "+007.50"), "7.50");
        assert_eq!(accepted(&Kind::Decimal, "-.5"), "-0.5");
        assert_eq!(accepted(&Kind::Decimal, "+.5"), "0.5");
        assert_eq!(accepted(&Kind::Decimal, "00e1"), "0e1");
        assert_eq!(accepted(&Kind::Decimal, "1e5"), "1e5");
        assert_eq!(accepted(&Kind::Decimal, "1.0E-2"), "1.0E-2");
        assert_eq!(accepted(&Kind::Integer, "00"), "0");
        assert_eq!(
            accepted(&Kind::Integer, "-12345678901234567890123"),
            "-12345678901234567890123"
        );
        for text in ["79.90", "7", "-0.5", "1e5", "1.0E-2"] {
            let json = accepted(&Kind::Decimal, text);
            assert!(serde_json::from_str::<serde_json::Number>(&json).is_ok());
        }
    }

    #[test]
    fn only_numbers_that_stay_as_they_are_need_no_conversion() {
        let words = ["0", "7", "1200", "0.5", "79.90", "10.0"];
        for word in words {
            assert!(is_json(&Kind::Decimal, word), "{word}");
            assert_eq!(is_json(&Kind::Integer, word), !word.contains('.'), "{word}");
        }
        let others = [
            "", "x", "1x", "00", "01", "00.5", "0.", ".5", "5.", "1.2.3", "1.x", "1,5", "+1", "٣",
            " 1", "1e5", "-1",
        ];
        for word in words.into_iter().chain(others) {
            for kind in [Kind::Integer, Kind::Decimal] {
                assert!(
                    !is_json(&kind, word) || to_json(&kind, word).as_deref() == Ok(word),
                    "{word}"
                );
            }
            assert!(!is_json(&Kind::Boolean, word) && !is_json(&Kind::String, word));
        }
        assert!(!others.iter().any(|word| is_json(&Kind::Decimal, word)));
    }

    #[test]
    fn what_is_not_a_number_is_refused() {
        for text in [
            "", ".", "5.", "1,5", "1.2.3", "EUR 5", "--1", "+-1", "1e", "1e+", "e5", "0x1f", "NaN",
            "٣",
        ] {
            assert_eq!(
                to_json(&Kind::Decimal, text),
                Err(TypeError::NotADecimal),
                "{text}"
            );
        }
        for text in ["", "1.0", "1e3", "+", "1 2"] {
            assert_eq!(
                to_json(&Kind::Integer, text),
                Err(TypeError::NotAnInteger),
                "{text}"
            );
        }
    }

    #[test]
    fn booleans_are_words_or_digits() {
        for (text, json) in [
            ("true", "true"),
            ("False", "false"),
            (" 1 ", "true"),
            ("0", "false"),
        ] {
            assert_eq!(accepted(&Kind::Boolean, text), json);
        }
        assert_eq!(to_json(&Kind::Boolean, "yes"), Err(TypeError::NotABoolean));
    }
}
