//! The envelope in which SNS delivers: to a queue as it is, to a webhook signed. What a notification's envelope holds is
//! another service's message, as a text.
//!
//! Shape: <https://docs.aws.amazon.com/sns/latest/dg/sns-message-and-json-formats.html>.

use std::fmt;

use serde::Deserialize;
use serde_json::Value;

use super::{Body, Message, ParseError, open};

/// An envelope as SNS wrote it; nothing in it is proven.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Envelope {
    #[serde(rename = "Type")]
    pub kind: Kind,
    pub topic_arn: String,
    pub message: String,
    pub message_id: String,
    pub subject: Option<String>,
    pub timestamp: String,
    // A queue's policy vouches for its messages, so that there these may be anything.
    #[serde(default)]
    pub signature_version: String,
    #[serde(default)]
    pub signature: String,
    #[serde(default, rename = "SigningCertURL")]
    pub signing_cert_url: String,
    /// Of the two confirmations only.
    pub token: Option<String>,
    #[serde(rename = "SubscribeURL")]
    pub subscribe_url: Option<String>,
}

/// What SNS wants of the one it writes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Deserialize)]
pub enum Kind {
    Notification,
    /// Nothing is delivered before somebody has followed its link.
    SubscriptionConfirmation,
    /// Nothing is delivered any more.
    UnsubscribeConfirmation,
}

impl Envelope {
    /// `None` when the message is no envelope.
    pub(super) fn of(message: &Value) -> Option<Result<Self, ParseError>> {
        message.get("Type")?;
        message.get("TopicArn")?;
        Some(Self::deserialize(message).map_err(ParseError::BrokenEnvelope))
    }

    /// The message in the envelope of a notification.
    pub fn open(&self) -> Result<Message, ParseError> {
        if self.kind != Kind::Notification {
            return Err(ParseError::SnsConfirmation {
                kind: self.kind,
                topic_arn: super::excerpt(&self.topic_arn),
            });
        }
        match open(self.message.as_bytes())? {
            Body::Message(message) => Ok(message),
            Body::Sns(_) => Err(ParseError::EnvelopeInEnvelope),
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Notification => "Notification",
            Self::SubscriptionConfirmation => "SubscriptionConfirmation",
            Self::UnsubscribeConfirmation => "UnsubscribeConfirmation",
        })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::tests::{created, fixture};
    use super::super::{Dialect, parse};
    use super::*;

    fn envelope(kind: &str, message: &str) -> String {
        json!({"Type": kind, "TopicArn": "arn:aws:sns:eu-central-1:000000000000:feeds", "MessageId": "m",
            "Timestamp": "2026-03-14T15:09:26Z", "Message": message})
        .to_string()
    }

    #[test]
    fn what_an_envelope_holds_is_read_as_if_it_had_come_alone() {
        for name in ["aws-put.json", "eventbridge.json"] {
            let inner = fixture(name);
            let body = envelope("Notification", std::str::from_utf8(&inner).unwrap());
            assert_eq!(created(body.as_bytes()), created(&inner), "{name}");
        }
        let test_event = String::from_utf8(fixture("aws-test-event.json")).unwrap();
        let read = parse(envelope("Notification", &test_event).as_bytes()).unwrap();
        assert_eq!(read.dialect, Dialect::Aws);
    }

    #[test]
    fn what_no_envelope_should_hold_is_refused() {
        let refused = |body: &str| parse(body.as_bytes()).unwrap_err().to_string();
        let nested = envelope("Notification", &envelope("Notification", "{}"));
        assert_eq!(refused(&nested), "an SNS envelope in an SNS envelope");
        assert!(refused(&envelope("Notification", "hello")).contains("hello"));
        assert!(refused(&envelope("Other", "{}")).contains("SNS envelope"));
        let confirmation = refused(&envelope("SubscriptionConfirmation", "You have chosen"));
        assert!(
            confirmation.contains("SubscriptionConfirmation")
                && confirmation.contains("eu-central-1:000000000000:feeds"),
            "{confirmation}"
        );
    }

    #[test]
    fn an_envelope_that_lacks_what_sns_writes_is_told_apart_from_no_envelope() {
        let error = parse(br#"{"Type":"Notification","TopicArn":"a"}"#).unwrap_err();
        assert!(matches!(error, ParseError::BrokenEnvelope(_)), "{error}");
        for body in [r#"{"Type":"Notification"}"#, r#"{"TopicArn":"a"}"#] {
            let error = parse(body.as_bytes()).unwrap_err();
            assert!(matches!(error, ParseError::UnknownDialect { .. }), "{body}");
        }
    }
}
