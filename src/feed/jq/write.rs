//! jaq's values as JSON. They can be more than JSON has: byte strings, keys that are no text, numbers that are none.

use jaq_json::{Num, Val};

use super::failed;
use crate::feed::reject::ConvertError;
use crate::feed::write::Record;

pub fn value(value: &Val, depth: usize, record: &mut Record<'_>) -> Result<(), ConvertError> {
    match value {
        Val::Null => record.raw("null"),
        Val::Bool(true) => record.raw("true"),
        Val::Bool(false) => record.raw("false"),
        Val::Num(number) => write_number(number, record),
        Val::TStr(text) => record.string(utf8(text)?),
        Val::BStr(_) => Err(failed("an output has a byte string, which JSON has not")),
        Val::Arr(_) | Val::Obj(_) if depth == 0 => Err(failed("an output is nested too deep")),
        Val::Arr(items) => {
            record.raw("[")?;
            for (index, item) in items.iter().enumerate() {
                record.raw(if index == 0 { "" } else { "," })?;
                self::value(item, depth - 1, record)?;
            }
            record.raw("]")
        }
        Val::Obj(members) => {
            record.raw("{")?;
            for (index, (key, member)) in members.iter().enumerate() {
                let Val::TStr(key) = key else {
                    return Err(failed("an output has a key that is not a string"));
                };
                record.raw(if index == 0 { "" } else { "," })?;
                record.string(utf8(key)?)?;
                record.raw(":")?;
                self::value(member, depth - 1, record)?;
            }
            record.raw("}")
        }
    }
}

fn utf8(text: &[u8]) -> Result<&str, ConvertError> {
    std::str::from_utf8(text).map_err(|_| failed("an output has a string that is not UTF-8"))
}

fn write_number(number: &Num, record: &mut Record<'_>) -> Result<(), ConvertError> {
    match number {
        Num::Int(number) => record.raw(&number.to_string()),
        Num::BigInt(number) => record.raw(&number.to_string()),
        // The digits that the file has, or those of a program's constant, which may begin with a plus or a point.
        Num::Dec(digits) => match serde_json::from_str::<serde_json::Number>(digits) {
            Ok(_) => record.raw(digits),
            Err(_) => write_float(digits.parse().unwrap_or(f64::NAN), record),
        },
        Num::Float(number) => write_float(*number, record),
    }
}

fn write_float(number: f64, record: &mut Record<'_>) -> Result<(), ConvertError> {
    match serde_json::Number::from_f64(number) {
        Some(number) => record.raw(&number.to_string()),
        None => Err(failed("an output has a number that JSON has not")),
    }
}
