//! Messages that SNS posts: who may say that SNS said it, and the link that starts a subscription.
//!
//! Promises: a message passes when its topic is one that the configuration lists, it is an hour old at most, and its
//! signature was made with the key of a certificate that the topic's own host serves by HTTPS. Nothing else that a message
//! names is ever asked, whoever sent it. The certificate is trusted for where it comes from: the file that AWS serves is
//! without the authorities that would prove more.
//!
//! <https://docs.aws.amazon.com/sns/latest/dg/sns-verify-signature-of-message.html>

mod certificates;
mod signature;
pub mod web;

use std::collections::HashMap;

use jiff::{SignedDuration, Timestamp};
use tracing::{info, warn};
use url::Url;

use self::certificates::Certificates;
pub use self::signature::SignatureError;
use self::web::{Web, WebError};
use super::notification::sns::{Envelope, Kind};
use crate::config::topic_arn::TopicArn;
use crate::topics::cut;

/// SNS repeats a message for an hour at most; clocks may differ by five minutes.
/// <https://docs.aws.amazon.com/sns/latest/dg/sns-message-delivery-retries.html>
const LONGEST_RETRY: SignedDuration = SignedDuration::from_hours(1);
const CLOCK_SKEW: SignedDuration = SignedDuration::from_mins(5);

/// Bytes of a certificate, or of the answer to a confirmation.
const ANSWER_BYTES: usize = 64 * 1024;

/// Bytes of a message's words that are repeated in a reason.
const QUOTED_BYTES: usize = 200;

/// The topics that are listened to.
pub struct Sns {
    /// By ARN, the host that speaks for it.
    hosts: HashMap<String, String>,
    certificates: Certificates,
    web: Box<dyn Web>,
}

/// Why a message of SNS is not taken.
#[derive(Debug, thiserror::Error)]
pub enum SnsError {
    #[error("a message of the SNS topic {0:?}, which is not in intake.sns_topics")]
    UnknownTopic(String),
    #[error("the message's Timestamp {0:?} is more than an hour ago, or no time of now")]
    NotOfNow(String),
    #[error(
        "the message's {field} {url:?} is not one that https://{host} has; nothing was asked there"
    )]
    ForeignUrl {
        field: &'static str,
        url: String,
        host: String,
    },
    #[error("the message's signature proves nothing")]
    Signature(#[from] SignatureError),
    #[error("the certificate of the message's signature can't be used")]
    Certificate(#[source] certificates::CertificateError),
    #[error("the certificate of the message's signature can't be had")]
    Fetch(#[source] WebError),
    #[error("the subscription can't be confirmed")]
    Confirm(#[source] WebError),
    #[error("too many certificates are being asked for already")]
    Busy,
}

impl SnsError {
    /// Whether the same message may pass later.
    pub fn may_pass(&self) -> bool {
        match self {
            Self::Fetch(_) | Self::Confirm(_) | Self::Certificate(_) | Self::Busy => true,
            Self::UnknownTopic(_)
            | Self::NotOfNow(_)
            | Self::ForeignUrl { .. }
            | Self::Signature(_) => false,
        }
    }
}

impl Sns {
    pub fn new(topics: impl IntoIterator<Item = TopicArn>, web: impl Web + 'static) -> Self {
        let hosts = topics.into_iter().map(|topic| (topic.arn, topic.host));
        Self {
            hosts: hosts.collect(),
            certificates: Certificates::default(),
            web: Box::new(web),
        }
    }

    /// Whether a topic is listed at all.
    pub fn is_used(&self) -> bool {
        !self.hosts.is_empty()
    }

    /// Checks a message; a notification may be opened then. A confirmation is done with when this returns.
    pub async fn accept(&self, envelope: &Envelope, now: Timestamp) -> Result<(), SnsError> {
        let host = self.check(envelope, now).await?;
        let topic = &envelope.topic_arn;
        match envelope.kind {
            Kind::Notification => {}
            Kind::SubscriptionConfirmation => {
                self.confirm(envelope, host).await?;
                info!(topic, "subscription to an SNS topic confirmed");
            }
            Kind::UnsubscribeConfirmation => warn!(
                topic,
                "unsubscribed from an SNS topic; nothing of it comes any more until somebody subscribes again"
            ),
        }
        Ok(())
    }

    /// The host that speaks for the message's topic, once all that can be checked is.
    async fn check(&self, envelope: &Envelope, now: Timestamp) -> Result<&str, SnsError> {
        let host = self.hosts.get(&envelope.topic_arn);
        let host = host.ok_or_else(|| SnsError::UnknownTopic(quoted(&envelope.topic_arn)))?;
        if !is_of_now(&envelope.timestamp, now) {
            return Err(SnsError::NotOfNow(quoted(&envelope.timestamp)));
        }
        let url = own_url("SigningCertURL", &envelope.signing_cert_url, host)?;
        if !url.path().ends_with(".pem") || url.query().is_some() {
            return Err(foreign("SigningCertURL", &envelope.signing_cert_url, host));
        }
        let certificate = self.certificates.get(&url, now, &*self.web).await?;
        signature::verify(envelope, &certificate.public_key)?;
        Ok(host)
    }

    /// Follows the link of a message that was checked.
    async fn confirm(&self, envelope: &Envelope, host: &str) -> Result<(), SnsError> {
        let link = envelope.subscribe_url.as_deref().unwrap_or_default();
        let url = own_url("SubscribeURL", link, host)?;
        let answer = self.web.get(url, ANSWER_BYTES).await;
        answer.map(drop).map_err(SnsError::Confirm)
    }
}

fn is_of_now(text: &str, now: Timestamp) -> bool {
    text.parse::<Timestamp>().is_ok_and(|said| {
        let age = now.duration_since(said);
        -CLOCK_SKEW <= age && age <= LONGEST_RETRY + CLOCK_SKEW
    })
}

/// A URL on this host and nowhere else: by HTTPS, on its usual port, without a user name.
fn own_url(field: &'static str, text: &str, host: &str) -> Result<Url, SnsError> {
    let url = Url::parse(text).ok().filter(|url| {
        url.scheme() == "https"
            && url.host_str() == Some(host)
            && url.port().is_none()
            && url.username().is_empty()
            && url.password().is_none()
    });
    url.ok_or_else(|| foreign(field, text, host))
}

fn foreign(field: &'static str, url: &str, host: &str) -> SnsError {
    SnsError::ForeignUrl {
        field,
        url: quoted(url),
        host: host.to_owned(),
    }
}

fn quoted(text: &str) -> String {
    cut(text, QUOTED_BYTES)
}

#[cfg(test)]
mod tests;
