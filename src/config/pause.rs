//! Lengths of time as people write them: `"3h"`, `"90s"`, `"1m 30s"`; for serde's `with`.

use std::time::Duration;

use jiff::{SignedDuration, Span, SpanRelativeTo};
use serde::{Deserialize, Deserializer, Serializer, de::Error};

pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    let text = String::deserialize(deserializer)?;
    length(&text).ok_or_else(|| {
        D::Error::custom(format_args!(
            "expected a length of time such as \"3h\", \"90s\" or \"500ms\", found {text:?}"
        ))
    })
}

/// The length of time that a text says.
pub fn length(text: &str) -> Option<Duration> {
    let span = text.parse::<Span>().ok()?;
    let length = span.to_duration(SpanRelativeTo::days_are_24_hours());
    Duration::try_from(length.ok()?).ok()
}

pub fn serialize<S: Serializer>(length: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    match SignedDuration::try_from(*length) {
        Ok(length) => serializer.collect_str(&format_args!("{length:#}")),
        Err(error) => Err(serde::ser::Error::custom(error)),
    }
}

/// The same for a length that may be left out.
pub mod optional {
    use super::*;

    pub fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<Duration>, D::Error> {
        super::deserialize(deserializer).map(Some)
    }

    pub fn serialize<S: Serializer>(
        length: &Option<Duration>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        match length {
            Some(length) => super::serialize(length, serializer),
            None => serializer.serialize_none(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(serde::Deserialize, serde::Serialize)]
    struct Setting {
        #[serde(with = "super")]
        every: Duration,
    }

    #[test]
    fn lengths_of_time_are_read_as_people_write_them() {
        let read = |text: &str| {
            toml::from_str::<Setting>(&format!("every = {text:?}")).map(|setting| setting.every)
        };
        for (text, seconds) in [
            ("3h", 10_800),
            ("90s", 90),
            ("1m 30s", 90),
            ("0s", 0),
            ("7d", 604_800),
        ] {
            assert_eq!(
                read(text).ok(),
                Some(Duration::from_secs(seconds)),
                "{text}"
            );
        }
        for text in ["", "3", "-3h", "soon", "1y", "99999999999999999h"] {
            assert!(read(text).is_err(), "{text:?}");
        }
        let shown = toml::to_string(&Setting {
            every: Duration::from_secs(10_800),
        })
        .unwrap();
        assert_eq!(shown.trim(), "every = \"3h\"");
    }
}
