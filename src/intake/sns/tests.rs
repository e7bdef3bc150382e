//! What SNS signed passes, and nothing else; and nobody but the topic's own host is ever asked.

#[path = "../../../tests/support/sns_signer.rs"]
mod signer;

use std::collections::HashMap;
use std::sync::{Arc, LazyLock, Mutex};

use futures::future::{self, BoxFuture};
use serde_json::{Value, json};

use self::signer::{
    CERTIFICATE_URL, HOST, SUBSCRIBE_URL, Signer, TOPIC, confirmation, notification,
};
use super::signature::string_to_sign;
use super::*;
use crate::intake::notification::{Body, open};

const NOW: &str = "2026-03-14T15:09:26.535Z";

fn now() -> Timestamp {
    NOW.parse().unwrap()
}

/// A key for all tests, with a certificate of a year around [`NOW`].
static SIGNER: LazyLock<Signer> = LazyLock::new(|| Signer::valid(1_767_225_600, 1_798_761_600));

/// What the tests' web has, and what it was asked for.
#[derive(Clone, Default)]
struct Pages {
    bodies: HashMap<String, Vec<u8>>,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Pages {
    fn with(mut self, url: &str, body: &[u8]) -> Self {
        self.bodies.insert(url.to_owned(), body.to_vec());
        self
    }

    fn of_sns() -> Self {
        Self::default()
            .with(CERTIFICATE_URL, &SIGNER.certificate)
            .with(SUBSCRIBE_URL, b"<ConfirmSubscriptionResponse/>")
    }

    fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap().clone()
    }
}

impl Web for Pages {
    fn get(&self, url: Url, _: usize) -> BoxFuture<'_, Result<Vec<u8>, WebError>> {
        self.asked.lock().unwrap().push(url.to_string());
        let body = self.bodies.get(url.as_str()).cloned();
        Box::pin(future::ready(body.ok_or_else(|| WebError::Status {
            host: url.host_str().unwrap().to_owned(),
            status: 404,
        })))
    }
}

fn sns(web: impl Web + 'static) -> Sns {
    Sns::new([TopicArn::parse(TOPIC).unwrap()], web)
}

fn envelope(message: &Value) -> Envelope {
    match open(message.to_string().as_bytes()).unwrap() {
        Body::Sns(envelope) => *envelope,
        Body::Message(_) => panic!("no envelope: {message}"),
    }
}

async fn accept(pages: &Pages, message: &Value) -> Result<(), SnsError> {
    sns(pages.clone()).accept(&envelope(message), now()).await
}

fn with(message: &Value, field: &str, value: impl Into<Value>) -> Value {
    let mut changed = message.clone();
    changed[field] = value.into();
    changed
}

#[test]
fn the_string_to_sign_is_the_one_of_the_documentation() {
    let message = notification("{}", NOW);
    assert_eq!(
        string_to_sign(&envelope(&message)),
        "Message\n{}\nMessageId\n22b80b92\nSubject\nAmazon S3 Notification\nTimestamp\n2026-03-14T15:09:26.535Z\n\
         TopicArn\narn:aws:sns:eu-central-1:111122223333:feeds\nType\nNotification\n"
    );
    let mut without_subject = message;
    without_subject.as_object_mut().unwrap().remove("Subject");
    assert_eq!(
        string_to_sign(&envelope(&without_subject)),
        "Message\n{}\nMessageId\n22b80b92\nTimestamp\n2026-03-14T15:09:26.535Z\n\
         TopicArn\narn:aws:sns:eu-central-1:111122223333:feeds\nType\nNotification\n"
    );
    for kind in ["SubscriptionConfirmation", "UnsubscribeConfirmation"] {
        let message = with(&confirmation(NOW), "Type", kind);
        assert_eq!(
            string_to_sign(&envelope(&message)),
            format!(
                "Message\nYou have chosen to subscribe\nMessageId\n165545c9\nSubscribeURL\n{SUBSCRIBE_URL}\n\
                 Timestamp\n2026-03-14T15:09:26.535Z\nToken\nt\nTopicArn\n{TOPIC}\nType\n{kind}\n"
            )
        );
    }
}

#[tokio::test]
async fn what_sns_signed_passes_in_both_versions_and_its_certificate_is_fetched_once() {
    let pages = Pages::of_sns();
    let sns = sns(pages.clone());
    for version in ["1", "2"] {
        let message = SIGNER.sign(notification("{\"Records\":[]}\n", NOW), version);
        sns.accept(&envelope(&message), now()).await.unwrap();
    }
    assert_eq!(pages.asked(), [CERTIFICATE_URL]);
}

#[tokio::test]
async fn a_change_to_anything_that_was_signed_is_seen() {
    let subscription = SIGNER.sign(confirmation(NOW), "2");
    let notification = SIGNER.sign(notification("{}", NOW), "1");
    let pages = Pages::of_sns();
    for (message, field, value) in [
        (&notification, "Message", "{} "),
        (&notification, "MessageId", "other"),
        (&notification, "Subject", "other"),
        (&notification, "Timestamp", "2026-03-14T15:09:26.536Z"),
        (&notification, "Type", "UnsubscribeConfirmation"),
        (&notification, "SignatureVersion", "2"),
        (&subscription, "Token", "other"),
        (&subscription, "SubscribeURL", HOST),
        (&subscription, "Type", "Notification"),
    ] {
        let error = accept(&pages, &with(message, field, value)).await;
        assert!(
            matches!(error, Err(SnsError::Signature(SignatureError::Mismatch))),
            "{field}: {error:?}"
        );
    }
    assert!(!pages.asked().contains(&SUBSCRIBE_URL.to_owned()));
}

#[tokio::test]
async fn what_another_key_signed_or_nobody_is_refused() {
    let pages = Pages::of_sns();
    let stranger = Signer::valid(1_767_225_600, 1_798_761_600);
    let error = accept(&pages, &stranger.sign(notification("{}", NOW), "2")).await;
    assert!(matches!(
        error,
        Err(SnsError::Signature(SignatureError::Mismatch))
    ));
    let good = SIGNER.sign(notification("{}", NOW), "2");
    for (field, value, expected) in [
        ("Signature", "", SignatureError::Mismatch),
        ("Signature", "AA==", SignatureError::Mismatch),
        ("Signature", "*", SignatureError::NotBase64),
        (
            "SignatureVersion",
            "",
            SignatureError::UnknownVersion("".into()),
        ),
        (
            "SignatureVersion",
            "3",
            SignatureError::UnknownVersion("3".into()),
        ),
    ] {
        match accept(&pages, &with(&good, field, value)).await {
            Err(SnsError::Signature(error)) => assert_eq!(error, expected),
            other => panic!("{field} {value}: {other:?}"),
        }
    }
}

#[tokio::test]
async fn a_certificate_is_fetched_from_the_topics_own_host_only() {
    let good = SIGNER.sign(notification("{}", NOW), "2");
    let pages = Pages::of_sns();
    for url in [
        "",
        "sns.eu-central-1.amazonaws.com/a.pem",
        "http://sns.eu-central-1.amazonaws.com/a.pem",
        "file:///etc/ssl/a.pem",
        "https://evil.example/a.pem",
        "https://evil.example/sns.eu-central-1.amazonaws.com/a.pem",
        "https://sns.eu-central-1.amazonaws.com.evil.example/a.pem",
        "https://evilsns.eu-central-1.amazonaws.com/a.pem",
        "https://evil.sns.eu-central-1.amazonaws.com/a.pem",
        "https://sns.eu-central-1.amazonaws.com@evil.example/a.pem",
        "https://evil@sns.eu-central-1.amazonaws.com/a.pem",
        "https://:evil@sns.eu-central-1.amazonaws.com/a.pem",
        "https://sns.eu-central-1.amazonaws.com:8443/a.pem",
        "https://sns.eu-central-1.amazonaws.com%2eevil.example/a.pem",
        "https://evil.example\\sns.eu-central-1.amazonaws.com/a.pem",
        "https://evil.example#@sns.eu-central-1.amazonaws.com/a.pem",
        "https://evil.example?@sns.eu-central-1.amazonaws.com/a.pem",
        "https://sns.eu-central-1.amazonaws.com./a.pem",
        "https://sns.eu-central-1.amazonaws.cn/a.pem",
        "https://sns.eu-central-1.amazonaws.com.cn/a.pem",
        "https://sns.us-east-1.amazonaws.com/a.pem",
        "https://sns.s3.amazonaws.com/a.pem",
        "https://sns.s3-us-west-2.amazonaws.com/a.pem",
        "https://s3.amazonaws.com/sns.eu-central-1.amazonaws.com/a.pem",
        "https://169.254.169.254/latest/a.pem",
        "https://[::1]/a.pem",
        "https://localhost/a.pem",
        "https://sns.eu-central-1.amazonaws.com/",
        "https://sns.eu-central-1.amazonaws.com/a.pem/b",
        "https://sns.eu-central-1.amazonaws.com/?a.pem",
        "https://sns.eu-central-1.amazonaws.com/#.pem",
        "https://sns.eu-central-1.amazonaws.com/a.pem?Action=Publish",
    ] {
        let error = accept(&pages, &with(&good, "SigningCertURL", url)).await;
        assert!(
            matches!(error, Err(SnsError::ForeignUrl { .. })),
            "{url}: {error:?}"
        );
        assert!(!error.unwrap_err().may_pass());
    }
    assert_eq!(pages.asked(), [""; 0]);
}

#[tokio::test]
async fn a_subscription_is_confirmed_by_its_link_after_the_signature_and_only_on_the_topics_host() {
    let pages = Pages::of_sns();
    let good = SIGNER.sign(confirmation(NOW), "1");
    accept(&pages, &good).await.unwrap();
    assert_eq!(pages.asked(), [CERTIFICATE_URL, SUBSCRIBE_URL]);
    for url in [
        "https://evil.example/?Action=ConfirmSubscription",
        "https://sns.us-east-1.amazonaws.com/?Action=ConfirmSubscription",
        "http://sns.eu-central-1.amazonaws.com/?Action=ConfirmSubscription",
    ] {
        let pages = Pages::of_sns();
        let signed = SIGNER.sign(with(&confirmation(NOW), "SubscribeURL", url), "1");
        let error = accept(&pages, &signed).await;
        assert!(
            matches!(error, Err(SnsError::ForeignUrl { .. })),
            "{url}: {error:?}"
        );
        assert_eq!(pages.asked(), [CERTIFICATE_URL]);
    }
    let gone = Pages::default().with(CERTIFICATE_URL, &SIGNER.certificate);
    let error = accept(&gone, &good).await.unwrap_err();
    assert!(matches!(error, SnsError::Confirm(_)) && error.may_pass());
    let unsubscribed = with(&confirmation(NOW), "Type", "UnsubscribeConfirmation");
    let pages = Pages::of_sns();
    let unsubscribed = SIGNER.sign(unsubscribed, "1");
    accept(&pages, &unsubscribed).await.unwrap();
    assert_eq!(pages.asked(), [CERTIFICATE_URL]);
}

#[tokio::test]
async fn for_a_topic_that_is_not_listed_nobody_is_asked() {
    let pages = Pages::of_sns();
    for arn in [
        "arn:aws:sns:eu-central-1:999988887777:feeds",
        "arn:aws:sns:eu-central-1:111122223333:feeds2",
        "arn:aws:sns:eu-central-1:111122223333:FEEDS",
        "",
    ] {
        for message in [notification("{}", NOW), confirmation(NOW)] {
            let signed = SIGNER.sign(with(&message, "TopicArn", arn), "2");
            let error = accept(&pages, &signed).await.unwrap_err();
            assert!(matches!(error, SnsError::UnknownTopic(_)), "{error:?}");
            assert!(error.to_string().contains("intake.sns_topics"));
        }
    }
    assert_eq!(pages.asked(), [""; 0]);
}

#[tokio::test]
async fn a_message_is_taken_for_as_long_as_sns_repeats_it() {
    let pages = Pages::of_sns();
    for (said, is_taken) in [
        ("2026-03-14T15:09:26.535Z", true),
        ("2026-03-14T14:05:00.000Z", true),
        ("2026-03-14T14:04:00.000Z", false),
        ("2026-03-13T15:09:26.535Z", false),
        ("2026-03-14T15:14:00.000Z", true),
        ("2026-03-14T15:15:00.000Z", false),
        ("2026-03-14", false),
        ("yesterday", false),
        ("", false),
    ] {
        let message = SIGNER.sign(notification("{}", said), "2");
        match accept(&pages, &message).await {
            Ok(()) => assert!(is_taken, "{said}"),
            Err(SnsError::NotOfNow(_)) => assert!(!is_taken, "{said}"),
            Err(other) => panic!("{said}: {other:?}"),
        }
    }
}

#[tokio::test]
async fn a_certificate_that_cannot_be_used_may_be_mended_and_is_not_kept() {
    let good = SIGNER.sign(notification("{}", NOW), "2");
    let expired = Signer::valid(1_767_225_600, 1_767_225_601);
    for body in [b"<html>".as_slice(), b"", &expired.certificate] {
        let pages = Pages::default().with(CERTIFICATE_URL, body);
        let error = accept(&pages, &good).await.unwrap_err();
        assert!(matches!(error, SnsError::Certificate(_)), "{error:?}");
        assert!(error.may_pass());
    }
    let pages = Pages::default();
    let sns = sns(pages.clone());
    for _ in 0..2 {
        let error = sns.accept(&envelope(&good), now()).await.unwrap_err();
        assert!(matches!(error, SnsError::Fetch(_)) && error.may_pass());
    }
    assert_eq!(pages.asked().len(), 2, "a failure is not remembered");
}

/// A web that never answers.
struct Silence;

impl Web for Silence {
    fn get(&self, _: Url, _: usize) -> BoxFuture<'_, Result<Vec<u8>, WebError>> {
        Box::pin(future::pending())
    }
}

#[tokio::test]
async fn certificates_are_asked_for_by_a_few_at_a_time() {
    let sns = sns(Silence);
    let good = SIGNER.sign(notification("{}", NOW), "2");
    let messages = (0..5).map(|number| {
        let url = format!("{HOST}/{number}.pem");
        envelope(&with(&good, "SigningCertURL", url))
    });
    let messages: Vec<_> = messages.collect();
    let mut accepted: Vec<_> = messages
        .iter()
        .map(|message| Box::pin(sns.accept(message, now())))
        .collect();
    let last = accepted.pop().unwrap();
    for first in &mut accepted {
        assert!(future::poll_immediate(first).await.is_none());
    }
    assert!(matches!(last.await, Err(SnsError::Busy)));
}

#[tokio::test]
async fn odd_envelopes_never_panic() {
    let pages = Pages::of_sns();
    let good = SIGNER.sign(notification("{}", NOW), "2");
    for field in ["Message", "Timestamp", "Signature", "SigningCertURL"] {
        for value in ["\u{0}", "ü", &"x".repeat(100_000)] {
            let error = accept(&pages, &with(&good, field, value))
                .await
                .unwrap_err();
            assert!(error.to_string().len() < 1_000, "{error}");
        }
        let body = with(&good, field, json!(7)).to_string();
        assert!(open(body.as_bytes()).is_err(), "{field}");
    }
}
