//! SNS as far as its signatures go: a key, its certificate, and messages signed with it.

// Each test file compiles this for itself and uses its own part of it.
#![allow(dead_code)]

use base64::{Engine, prelude::BASE64_STANDARD};
use openssl::asn1::Asn1Time;
use openssl::hash::MessageDigest;
use openssl::pkey::{PKey, Private};
use openssl::rsa::Rsa;
use openssl::sign::Signer as OpensslSigner;
use openssl::x509::{X509, X509NameBuilder};
use serde_json::{Value, json};

pub const TOPIC: &str = "arn:aws:sns:eu-central-1:111122223333:feeds";
pub const HOST: &str = "https://sns.eu-central-1.amazonaws.com";
pub const CERTIFICATE_URL: &str =
    "https://sns.eu-central-1.amazonaws.com/SimpleNotificationService-4711.pem";
pub const SUBSCRIBE_URL: &str =
    "https://sns.eu-central-1.amazonaws.com/?Action=ConfirmSubscription&Token=t";

pub struct Signer {
    key: PKey<Private>,
    /// PEM, as SNS serves it.
    pub certificate: Vec<u8>,
}

impl Signer {
    /// With a certificate that is valid between these seconds since 1970.
    pub fn valid(not_before: i64, not_after: i64) -> Self {
        let rsa = Rsa::generate(2048).expect("a key");
        let key = PKey::from_rsa(rsa).expect("a key");
        let mut name = X509NameBuilder::new().expect("a name");
        let host = "sns.amazonaws.com";
        name.append_entry_by_text("CN", host).expect("a name");
        let name = name.build();
        let mut certificate = X509::builder().expect("a certificate");
        let time = |seconds| Asn1Time::from_unix(seconds).expect("a time");
        let built = (|| {
            certificate.set_version(2)?;
            certificate.set_subject_name(&name)?;
            certificate.set_issuer_name(&name)?;
            certificate.set_not_before(&time(not_before))?;
            certificate.set_not_after(&time(not_after))?;
            certificate.set_pubkey(&key)?;
            certificate.sign(&key, MessageDigest::sha256())
        })();
        built.expect("a certificate");
        let certificate = certificate.build().to_pem().expect("PEM");
        Self { key, certificate }
    }

    /// A message with its signature, of version `"1"` or `"2"`, over what it says now.
    pub fn sign(&self, mut message: Value, version: &str) -> Value {
        let digest = match version {
            "1" => MessageDigest::sha1(),
            _ => MessageDigest::sha256(),
        };
        let mut signed = String::new();
        // In the order of their names.
        for field in [
            "Message",
            "MessageId",
            "Subject",
            "SubscribeURL",
            "Timestamp",
            "Token",
            "TopicArn",
            "Type",
        ] {
            if let Some(value) = message.get(field) {
                let value = value.as_str().expect("a text");
                signed.push_str(&format!("{field}\n{value}\n"));
            }
        }
        let mut signer = OpensslSigner::new(digest, &self.key).expect("a signer");
        let signature = signer.sign_oneshot_to_vec(signed.as_bytes());
        message["SignatureVersion"] = version.into();
        message["Signature"] = BASE64_STANDARD
            .encode(signature.expect("a signature"))
            .into();
        message["SigningCertURL"] = CERTIFICATE_URL.into();
        message
    }
}

/// A notification of [`TOPIC`] without a signature.
pub fn notification(message: &str, timestamp: &str) -> Value {
    json!({"Type": "Notification", "MessageId": "22b80b92", "TopicArn": TOPIC, "Subject": "Amazon S3 Notification",
        "Message": message, "Timestamp": timestamp})
}

/// What SNS sends before the first notification of [`TOPIC`], without a signature.
pub fn confirmation(timestamp: &str) -> Value {
    json!({"Type": "SubscriptionConfirmation", "MessageId": "165545c9", "Token": "t", "TopicArn": TOPIC,
        "Message": "You have chosen to subscribe", "SubscribeURL": SUBSCRIBE_URL, "Timestamp": timestamp})
}
