//! The attributes of an opening tag.

use std::borrow::Cow;
use std::collections::HashSet;

use super::events::check_length;
use super::malformed;
use super::text::{attribute_value, is_name_byte, is_name_start, is_space};
use crate::feed::container::check_text;
use crate::feed::limits::Limits;
use crate::feed::reject::{Reason, Rejection};

/// How many names are kept without asking for memory; few elements have more attributes.
const FEW: usize = 8;

/// Name and value, in the order of the document; a repeated name is malformed.
pub struct Attributes<'a> {
    /// What has not been looked at yet.
    rest: &'a str,
    limits: &'a Limits,
    count: usize,
    first_names: [&'a str; FEW],
    other_names: HashSet<&'a str>,
}

impl<'a> Attributes<'a> {
    /// `raw` is a tag without its brackets and the name of its element.
    #[inline]
    pub fn new(raw: &'a str, limits: &'a Limits) -> Self {
        Self {
            rest: raw,
            limits,
            count: 0,
            first_names: [""; FEW],
            other_names: HashSet::new(),
        }
    }

    fn read(&mut self, begin: &'a str) -> Result<(&'a str, Cow<'a, str>), Box<Rejection>> {
        if begin.len() == self.rest.len() {
            return Err(malformed("no white space before an attribute"));
        }
        let name_len = begin.bytes().position(|byte| !is_name_byte(byte));
        let (name, after) = begin.split_at(name_len.unwrap_or(begin.len()));
        self.check(name)?;
        let quoted = after
            .trim_start_matches(SPACES)
            .strip_prefix('=')
            .map(|value| value.trim_start_matches(SPACES).as_bytes());
        let Some(&[quote @ (b'"' | b'\''), ref value @ ..]) = quoted else {
            return Err(
                malformed("an attribute without a value in quotes").with_excerpt(name.as_bytes())
            );
        };
        let value_start = begin.len() - value.len();
        let Some(value_len) = memchr::memchr(quote, value) else {
            return Err(
                malformed("an attribute's quotes are not closed").with_excerpt(name.as_bytes())
            );
        };
        let value_end = value_start + value_len;
        self.rest = &begin[value_end + 1..];
        let value = attribute_value(&begin[value_start..value_end])?;
        check_text(value.len(), self.limits)?;
        Ok((name, value))
    }

    fn check(&mut self, name: &'a str) -> Result<(), Box<Rejection>> {
        if self.count == self.limits.attributes {
            let message = format!(
                "an element has more than {} attributes",
                self.limits.attributes
            );
            return Err(Rejection::because(Reason::TooManyAttributes, message));
        }
        check_length(name, self.limits)?;
        if !name.bytes().next().is_some_and(is_name_start) {
            return Err(malformed("not a name").with_excerpt(self.rest.as_bytes()));
        }
        let first_names = &self.first_names[..self.count.min(FEW)];
        let mut is_repeated = first_names.contains(&name);
        match self.first_names.get_mut(self.count) {
            Some(first) => *first = name,
            None => is_repeated |= !self.other_names.insert(name),
        }
        if is_repeated {
            return Err(malformed("an attribute is repeated").with_excerpt(name.as_bytes()));
        }
        self.count += 1;
        Ok(())
    }
}

const SPACES: [char; 4] = [' ', '\t', '\n', '\r'];

impl<'a> Iterator for Attributes<'a> {
    type Item = Result<(&'a str, Cow<'a, str>), Box<Rejection>>;

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        let spaces = self.rest.bytes().take_while(|&byte| is_space(byte)).count();
        let begin = &self.rest[spaces..];
        (!begin.is_empty()).then(|| self.read(begin))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(raw: &str) -> Result<Vec<(String, String)>, Reason> {
        let limits = Limits {
            attributes: 20,
            name_bytes: 9,
            ..Limits::default()
        };
        Attributes::new(raw, &limits)
            .map(|attribute| match attribute {
                Ok((name, value)) => Ok((name.to_owned(), value.into_owned())),
                Err(rejection) => Err(rejection.reason),
            })
            .collect()
    }

    #[test]
    fn names_and_values_come_in_their_order() {
        let pairs = read(" a='1' g:b = \"'&lt;\"\n\tc=''  ").unwrap();
        assert_eq!(
            pairs,
            [("a", "1"), ("g:b", "'<"), ("c", "")].map(|(name, value)| (name.into(), value.into()))
        );
        assert_eq!(read("").unwrap(), []);
        assert_eq!(read(" \n").unwrap(), []);
    }

    #[test]
    fn what_is_not_an_attribute_is_malformed() {
        for raw in [
            " a",
            " a=",
            " a=1",
            " a='1",
            " a='1'b='2'",
            " ='1'",
            " 'a'",
            " a='1' a='2'",
            " 1='1'",
            " a\"='1'",
            " a=='1'",
            " / ",
            " a='&'",
            " é\u{0}='1'",
        ] {
            assert_eq!(read(raw), Err(Reason::MalformedXml), "{raw}");
        }
    }

    #[test]
    fn many_attributes_are_told_apart_up_to_the_limit() {
        let many = |count: usize| (0..count).map(|n| format!(" a{n}=''")).collect::<String>();
        assert_eq!(read(&many(20)).unwrap().len(), 20);
        assert_eq!(read(&many(21)), Err(Reason::TooManyAttributes));
        for repeated in [0, 7, 8, 18] {
            let raw = format!("{} a{repeated}=''", many(19));
            assert_eq!(read(&raw), Err(Reason::MalformedXml), "{repeated}");
        }
        assert_eq!(read(" long_name0=''"), Err(Reason::NameTooLong));
    }
}
