//! Amounts of memory as people write them: `"512 MiB"`, `"2GB"`, or a number of bytes; for serde's `with`.

use bytesize::ByteSize;
use serde::{Deserialize, Deserializer, Serializer, de::Error};

const MIB: u64 = 1024 * 1024;

#[derive(Deserialize)]
#[serde(untagged)]
enum Written {
    Number(u64),
    Text(String),
}

pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
    let unclear =
        || D::Error::custom("expected an amount of memory such as \"512 MiB\" or \"2GB\"");
    match Written::deserialize(deserializer).map_err(|_| unclear())? {
        Written::Number(bytes) => Ok(bytes),
        Written::Text(text) => match text.parse::<ByteSize>() {
            Ok(size) => Ok(size.as_u64()),
            Err(_) => Err(unclear()),
        },
    }
}

/// Exactly what it is: a rounded amount would be another setting.
pub fn serialize<S: Serializer>(bytes: &u64, serializer: S) -> Result<S::Ok, S::Error> {
    match bytes % MIB {
        0 => serializer.collect_str(&format_args!("{} MiB", bytes / MIB)),
        _ => serializer.collect_str(&format_args!("{bytes} B")),
    }
}

#[cfg(test)]
mod tests {
    #[derive(serde::Deserialize, serde::Serialize)]
    struct Setting {
        #[serde(with = "super")]
        limit: u64,
    }

    fn read(value: &str) -> Option<u64> {
        let setting: Setting = toml::from_str(&format!("limit = {value}")).ok()?;
        Some(setting.limit)
    }

    #[test]
    fn amounts_are_read_as_people_write_them() {
        for (value, bytes) in [
            ("\"512 MiB\"", 536_870_912),
            ("\"512MiB\"", 536_870_912),
            ("\"512MB\"", 512_000_000),
            ("\"2GB\"", 2_000_000_000),
            ("\"1.5 GiB\"", 1_610_612_736),
            ("536870912", 536_870_912),
        ] {
            assert_eq!(read(value), Some(bytes), "{value}");
        }
        for value in ["\"\"", "\"much\"", "\"-1 MB\"", "-1", "true", "\"512 MX\""] {
            assert_eq!(read(value), None, "{value}");
        }
    }

    #[test]
    fn an_amount_is_shown_as_what_reads_back_the_same() {
        for bytes in [536_870_912, 512_000_000, 1, 0] {
            let shown = toml::to_string(&Setting { limit: bytes }).unwrap();
            let read: Setting = toml::from_str(&shown).unwrap();
            assert_eq!(read.limit, bytes, "{shown}");
        }
    }
}
