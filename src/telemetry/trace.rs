//! W3C trace context (https://www.w3.org/TR/trace-context/): carried from the request that announced an object through
//! the events to the results. feedmill carries it; it does not sample or export.

use std::fmt;

use uuid::Uuid;

/// A `traceparent`: version, trace id, parent id, flags.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TraceContext(String);

impl TraceContext {
    /// Takes the caller's context; makes a new one when it sent none, or none that can be read.
    pub fn from_header(header: Option<&str>) -> Self {
        header
            .map(str::trim)
            .and_then(Self::read)
            .unwrap_or_else(Self::begin)
    }

    /// A context somebody else wrote down, if it can be read.
    pub fn read(text: &str) -> Option<Self> {
        is_valid(text).then(|| Self(text.to_owned()))
    }

    /// The beginning of a trace that nobody else has begun.
    pub fn begin() -> Self {
        let (trace, span) = (
            Uuid::new_v4().simple().to_string(),
            Uuid::new_v4().simple().to_string(),
        );
        Self(format!("00-{trace}-{}-00", &span[..16]))
    }

    pub fn traceparent(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for TraceContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Version 00 exactly; an all-zero trace or parent id is invalid by the specification.
fn is_valid(text: &str) -> bool {
    let parts: Vec<&str> = text.split('-').collect();
    let [version, trace, parent, flags] = parts[..] else {
        return false;
    };
    let hex = |text: &str, length: usize| {
        text.len() == length
            && text
                .bytes()
                .all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
    };
    let zero = |text: &str| text.bytes().all(|byte| byte == b'0');
    version == "00"
        && hex(trace, 32)
        && hex(parent, 16)
        && hex(flags, 2)
        && !zero(trace)
        && !zero(parent)
}

#[cfg(test)]
mod tests {
    use super::*;

    const VALID: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    #[test]
    fn a_callers_context_is_carried_on() {
        assert_eq!(TraceContext::from_header(Some(VALID)).traceparent(), VALID);
    }

    #[test]
    fn an_absent_or_unreadable_context_is_replaced_by_a_valid_new_one() {
        let zero = "00-00000000000000000000000000000000-00f067aa0ba902b7-01";
        for header in [
            None,
            Some(""),
            Some("junk"),
            Some(zero),
            Some("01-x"),
            Some("é-a-b-c"),
        ] {
            let made = TraceContext::from_header(header);
            assert!(is_valid(made.traceparent()), "{header:?} gave {made}");
        }
    }
}
