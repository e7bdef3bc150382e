//! JSON, value by value, straight from the stream.
//!
//! In: the decoded stream. Out: values in compact form to a [`Sink`], or strings and literals one by one to a caller that walks. Promise: what
//! passed is JSON (RFC 8259) without exceptions, wherever it stands and whether it is kept or not; numbers keep their exact text,
//! strings are decoded and written again in one canonical form; nothing is held but one string.

use crate::feed::container::{Stream, check_text};
use crate::feed::limits::Limits;
use crate::feed::reject::{ConvertError, Place, Reason, Rejection};
use crate::feed::window::Window;
use crate::feed::write::Record;

/// Takes the pieces of a value.
pub trait Sink {
    fn raw(&mut self, json: &str) -> Result<(), ConvertError>;
    fn string(&mut self, text: &str) -> Result<(), ConvertError>;
}

impl Sink for Record<'_> {
    fn raw(&mut self, json: &str) -> Result<(), ConvertError> {
        Record::raw(self, json)
    }

    fn string(&mut self, text: &str) -> Result<(), ConvertError> {
        Record::string(self, text)
    }
}

/// A value that is checked and not kept.
pub struct Skip;

impl Sink for Skip {
    fn raw(&mut self, _: &str) -> Result<(), ConvertError> {
        Ok(())
    }

    fn string(&mut self, _: &str) -> Result<(), ConvertError> {
        Ok(())
    }
}

pub struct Scanner<'s, 'r> {
    window: Window<'s, 'r>,
    limits: &'r Limits,
    depth: usize,
    /// Whether all that is read belongs to one record and counts against its limit together.
    is_in_record: bool,
    scratch: String,
}

impl<'s, 'r> Scanner<'s, 'r> {
    pub fn new(stream: &'s mut Stream<'r>, limits: &'r Limits) -> Self {
        Self {
            window: Window::new(stream, limits, Reason::MalformedJson),
            limits,
            depth: 0,
            is_in_record: false,
            scratch: String::new(),
        }
    }

    /// Where the next byte is.
    pub fn place(&mut self) -> Place {
        self.window.place()
    }

    /// What comes next, for a rejection.
    pub fn upcoming(&mut self) -> &[u8] {
        self.window.upcoming().as_bytes()
    }

    pub fn begin_record(&mut self) {
        self.window.allow_after(0);
        self.is_in_record = true;
    }

    pub fn end_record(&mut self) {
        self.is_in_record = false;
    }

    /// Passes over white space; the byte after it, which is not taken, or `None` at the end of the file.
    #[inline]
    pub fn next(&mut self) -> Result<Option<u8>, ConvertError> {
        loop {
            if !self.is_in_record {
                self.window.allow_after(0);
            }
            let rest = self.window.rest().as_bytes();
            let spaces = rest.iter().take_while(|&&byte| is_space(byte)).count();
            let next = rest.get(spaces).copied();
            if next.is_some() || self.window.is_over() {
                self.window.pass(spaces);
                return Ok(next);
            }
            self.take_all(spaces)?;
        }
    }

    /// Takes the next `len` bytes, which are all that is at hand, and reads on.
    fn take_all(&mut self, len: usize) -> Result<(), ConvertError> {
        self.window.check(len)?;
        self.window.pass(len);
        self.window.read_on()
    }

    /// The next byte after white space, where the file must not end.
    pub fn peek(&mut self) -> Result<u8, ConvertError> {
        self.next()?
            .ok_or_else(|| malformed("the file ends inside a value").into())
    }

    /// Whether `byte` comes next; takes it then.
    pub fn take(&mut self, byte: u8) -> Result<bool, ConvertError> {
        let is_next = self.peek()? == byte;
        if is_next {
            self.window.check(1)?;
            self.window.pass(1);
        }
        Ok(is_next)
    }

    fn expect(&mut self, byte: u8) -> Result<(), ConvertError> {
        if self.take(byte)? {
            return Ok(());
        }
        Err(malformed(&format!("expected `{}`", char::from(byte))).into())
    }

    /// Calls `element` at the beginning of each element of the array that comes next; it must take the element.
    pub fn array(
        &mut self,
        mut element: impl FnMut(&mut Self) -> Result<(), ConvertError>,
    ) -> Result<(), ConvertError> {
        self.open(b'[')?;
        if !self.take(b']')? {
            element(self)?;
            while self.take(b',')? {
                element(self)?;
            }
            self.expect(b']')?;
        }
        self.depth -= 1;
        Ok(())
    }

    /// Calls `member` with the key of each member of the object that comes next; it must take the member's value.
    pub fn object(
        &mut self,
        mut member: impl FnMut(&mut Self, &str) -> Result<(), ConvertError>,
    ) -> Result<(), ConvertError> {
        self.open(b'{')?;
        if !self.take(b'}')? {
            self.member(&mut member)?;
            while self.take(b',')? {
                self.member(&mut member)?;
            }
            self.expect(b'}')?;
        }
        self.depth -= 1;
        Ok(())
    }

    fn member(
        &mut self,
        member: &mut impl FnMut(&mut Self, &str) -> Result<(), ConvertError>,
    ) -> Result<(), ConvertError> {
        if self.peek()? != b'"' {
            return Err(malformed("expected a key in quotes").into());
        }
        let mut key = std::mem::take(&mut self.scratch);
        key.clear();
        self.quoted(&mut key)?;
        if key.len() > self.limits.name_bytes {
            let message = format!("a key has more than {} bytes", self.limits.name_bytes);
            return Err(Rejection::because(Reason::NameTooLong, message)
                .with_excerpt(key.as_bytes())
                .into());
        }
        self.expect(b':')?;
        self.peek()?;
        member(self, &key)?;
        self.scratch = key;
        Ok(())
    }

    fn open(&mut self, bracket: u8) -> Result<(), ConvertError> {
        if self.depth == self.limits.depth {
            let message = format!(
                "arrays and objects are nested more than {} deep",
                self.limits.depth
            );
            return Err(Rejection::because(Reason::TooDeep, message).into());
        }
        self.depth += 1;
        self.expect(bracket)
    }

    /// Takes the next value, whatever it is.
    pub fn value(&mut self, sink: &mut impl Sink) -> Result<(), ConvertError> {
        match self.peek()? {
            b'[' => {
                let mut separator = "[";
                self.array(|scanner| {
                    sink.raw(std::mem::replace(&mut separator, ","))?;
                    scanner.value(sink)
                })?;
                sink.raw(if separator == "[" { "[]" } else { "]" })
            }
            b'{' => {
                let mut separator = "{";
                self.object(|scanner, key| {
                    sink.raw(std::mem::replace(&mut separator, ","))?;
                    sink.string(key)?;
                    sink.raw(":")?;
                    scanner.value(sink)
                })?;
                sink.raw(if separator == "{" { "{}" } else { "}" })
            }
            first => {
                let mut text = std::mem::take(&mut self.scratch);
                text.clear();
                if first == b'"' {
                    self.string(&mut text)?;
                    sink.string(&text)?;
                } else {
                    self.literal(&mut text)?;
                    sink.raw(&text)?;
                }
                self.scratch = text;
                Ok(())
            }
        }
    }

    /// Takes a number, `true`, `false` or `null`, and appends it as it stands.
    pub fn literal(&mut self, out: &mut String) -> Result<(), ConvertError> {
        self.peek()?;
        let start = out.len();
        loop {
            let rest = self.window.rest();
            let len = rest.bytes().take_while(|&byte| is_literal(byte)).count();
            out.push_str(&rest[..len]);
            if len < rest.len() || self.window.is_over() {
                self.window.check(len)?;
                self.window.pass(len);
                break;
            }
            self.take_all(len)?;
        }
        check_text(out.len() - start, self.limits)?;
        let word = &out[start..];
        if matches!(word, "true" | "false" | "null") || is_number(word) {
            return Ok(());
        }
        Err(malformed("not a value")
            .with_excerpt(if word.is_empty() {
                self.upcoming()
            } else {
                word.as_bytes()
            })
            .into())
    }

    /// Takes a string and appends what it stands for.
    pub fn string(&mut self, out: &mut String) -> Result<(), ConvertError> {
        let start = out.len();
        self.quoted(out)?;
        Ok(check_text(out.len() - start, self.limits)?)
    }

    /// A string, or a key.
    fn quoted(&mut self, out: &mut String) -> Result<(), ConvertError> {
        self.expect(b'"')?;
        loop {
            let rest = self.window.rest();
            let len = plain_run(rest.as_bytes());
            out.push_str(&rest[..len]);
            match rest.as_bytes().get(len) {
                None if self.window.is_over() => {
                    return Err(malformed("the file ends inside a string").into());
                }
                None => self.take_all(len)?,
                Some(b'"') => {
                    self.window.check(len + 1)?;
                    self.window.pass(len + 1);
                    return Ok(());
                }
                Some(b'\\') => {
                    self.window.check(len + 1)?;
                    self.window.pass(len + 1);
                    out.push(self.escape()?);
                }
                Some(_) => {
                    self.window.pass(len);
                    return Err(malformed("a control character in a string").into());
                }
            }
        }
    }

    /// What comes after a backslash.
    fn escape(&mut self) -> Result<char, ConvertError> {
        Ok(match self.byte()? {
            b'"' => '"',
            b'\\' => '\\',
            b'/' => '/',
            b'b' => '\u{8}',
            b'f' => '\u{c}',
            b'n' => '\n',
            b'r' => '\r',
            b't' => '\t',
            b'u' => self.unicode_escape()?,
            _ => return Err(malformed("an escape that JSON does not have").into()),
        })
    }

    /// Four digits, or two times four for a character outside the first plane (RFC 8259, section 7).
    fn unicode_escape(&mut self) -> Result<char, ConvertError> {
        let lone = || malformed("half a surrogate pair in a string");
        let first = self.four_digits()?;
        if !(0xd800..0xe000).contains(&first) {
            return char::from_u32(first).ok_or_else(|| lone().into());
        }
        if first >= 0xdc00 || self.byte()? != b'\\' || self.byte()? != b'u' {
            return Err(lone().into());
        }
        let second = self.four_digits()?;
        if !(0xdc00..0xe000).contains(&second) {
            return Err(lone().into());
        }
        char::from_u32(0x10000 + ((first - 0xd800) << 10) + (second - 0xdc00))
            .ok_or_else(|| lone().into())
    }

    fn four_digits(&mut self) -> Result<u32, ConvertError> {
        let mut number = 0;
        for _ in 0..4 {
            let digit = char::from(self.byte()?).to_digit(16);
            number =
                number * 16 + digit.ok_or_else(|| malformed("`\\u` without four hex digits"))?;
        }
        Ok(number)
    }

    fn byte(&mut self) -> Result<u8, ConvertError> {
        if self.window.rest().is_empty() {
            self.window.read_on()?;
        }
        let byte = self.window.rest().bytes().next();
        let byte = byte.ok_or_else(|| malformed("the file ends inside a string"))?;
        if !byte.is_ascii() {
            return Err(malformed("an escape that JSON does not have").into());
        }
        self.window.check(1)?;
        self.window.pass(1);
        Ok(byte)
    }
}

pub fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\n' | b'\r')
}

fn is_literal(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'+' | b'.')
}

/// How many bytes stand for themselves.
fn plain_run(chunk: &[u8]) -> usize {
    let is_plain = |byte: u8| byte >= b' ' && byte != b'"' && byte != b'\\';
    // Folded rather than searched, eight at a time, which compiles to vector instructions.
    let whole = chunk
        .chunks_exact(8)
        .take_while(|eight| {
            eight
                .iter()
                .fold(true, |plain, &byte| plain & is_plain(byte))
        })
        .count();
    let rest = &chunk[8 * whole..];
    8 * whole
        + rest
            .iter()
            .position(|&byte| !is_plain(byte))
            .unwrap_or(rest.len())
}

/// RFC 8259, section 6.
fn is_number(word: &str) -> bool {
    let digits = |text: &str| text.bytes().take_while(u8::is_ascii_digit).count();
    let unsigned = word.strip_prefix('-').unwrap_or(word);
    let whole = digits(unsigned);
    if whole == 0 || whole > 1 && unsigned.starts_with('0') {
        return false;
    }
    let mut rest = &unsigned[whole..];
    if let Some(fraction) = rest.strip_prefix('.') {
        let count = digits(fraction);
        if count == 0 {
            return false;
        }
        rest = &fraction[count..];
    }
    if let Some(exponent) = rest.strip_prefix(['e', 'E']) {
        let exponent = exponent.strip_prefix(['+', '-']).unwrap_or(exponent);
        let count = digits(exponent);
        return count > 0 && count == exponent.len();
    }
    rest.is_empty()
}

pub fn malformed(message: &str) -> Box<Rejection> {
    Rejection::because(Reason::MalformedJson, message)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::feed::encode::Encoder;
    use crate::feed::spec::OutputFormat;
    use crate::feed::write::Records;

    fn compact(mut json: &[u8]) -> Result<String, ConvertError> {
        let limits = Limits {
            depth: 8,
            ..Limits::default()
        };
        let mut output = Vec::new();
        let mut stream = Stream::open(&mut json, &limits)?;
        let mut scanner = Scanner::new(&mut stream, &limits);
        let mut records = Records::new(
            Encoder::new(&mut output, None).unwrap(),
            OutputFormat::Lines,
            &limits,
        );
        records.add(|record| scanner.value(record))?;
        assert!(scanner.next()?.is_none(), "something is left");
        records.finish()?;
        drop(records);
        Ok(String::from_utf8(output).unwrap().trim_end().to_owned())
    }

    #[test]
    fn values_become_compact_and_canonical_and_numbers_stay_as_they_are() {
        let json = b" { \"b\" : [ 1 , 2.50 , -0e+1 , { } , [ ] ] , \"a\" : \"\\u00e6\\/\\ud83d\\ude00\\n\" , \"a\": null }\n";
        assert_eq!(
            compact(json).unwrap(),
            r#"{"b":[1,2.50,-0e+1,{},[]],"a":"æ/😀\n","a":null}"#
        );
        assert_eq!(
            compact(b"12345678901234567890.10").unwrap(),
            "12345678901234567890.10"
        );
    }

    #[test]
    fn what_serde_json_refuses_is_refused() {
        let bad: &[&[u8]] = &[
            b"",
            b" ",
            b"{",
            b"[1,]",
            b"{\"a\":1,}",
            b"{a:1}",
            b"{\"a\" 1}",
            b"[1 2]",
            b"01",
            b"1.",
            b".5",
            b"-",
            b"1e",
            b"+1",
            b"tru",
            b"nul",
            b"NaN",
            b"'a'",
            b"\"a",
            b"\"\\x\"",
            b"\"\\u12\"",
            b"\"\\ud800\"",
            b"\"\\ud800\\u0041\"",
            b"\"\\udc00\"",
            b"\"\\udc00\\udc00\"",
            b"\"\n\"",
            b"\"\0\"",
            b"]",
            b"truex",
            b"\"\xff\"",
            b"[\"a\":1]",
            b"{\"a\"}",
            b"{1:2}",
        ];
        for json in bad {
            assert!(serde_json::from_slice::<serde_json::Value>(json).is_err());
            let error = compact(json).unwrap_err();
            let text = String::from_utf8_lossy(json);
            assert!(
                matches!(&error, ConvertError::Rejected(r) if matches!(r.reason, Reason::MalformedJson | Reason::InvalidEncoding)),
                "{text}: {error:?}"
            );
        }
    }

    #[test]
    fn depth_is_bounded() {
        assert!(compact(b"[[[[[[[[1]]]]]]]]").is_ok());
        let error = compact(b"[[[[[[[[[1]]]]]]]]]").unwrap_err();
        assert!(matches!(error, ConvertError::Rejected(r) if r.reason == Reason::TooDeep));
    }
}
