//! The signature of a message: what was signed, and whether by the certificate's key.

use base64::{Engine, prelude::BASE64_STANDARD};
use ring::signature::{
    RSA_PKCS1_2048_8192_SHA1_FOR_LEGACY_USE_ONLY, RSA_PKCS1_2048_8192_SHA256, UnparsedPublicKey,
};

use crate::intake::notification::sns::{Envelope, Kind};
use crate::topics::cut;

/// Why a signature proves nothing.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum SignatureError {
    #[error("signature version {0:?} is neither 1 nor 2")]
    UnknownVersion(String),
    #[error("it is not base64")]
    NotBase64,
    #[error("it is not of this message, or not by this certificate's key")]
    Mismatch,
}

/// Checks the signature of a message with an RSA public key (PKCS #1, DER).
pub(super) fn verify(envelope: &Envelope, public_key: &[u8]) -> Result<(), SignatureError> {
    // 1 is what SNS signs with unless the topic's SignatureVersion says otherwise.
    let algorithm = match envelope.signature_version.as_str() {
        "1" => &RSA_PKCS1_2048_8192_SHA1_FOR_LEGACY_USE_ONLY,
        "2" => &RSA_PKCS1_2048_8192_SHA256,
        other => return Err(SignatureError::UnknownVersion(cut(other, 20))),
    };
    let signature = BASE64_STANDARD.decode(&envelope.signature);
    let signature = signature.map_err(|_| SignatureError::NotBase64)?;
    UnparsedPublicKey::new(algorithm, public_key)
        .verify(string_to_sign(envelope).as_bytes(), &signature)
        .map_err(|_| SignatureError::Mismatch)
}

/// Each signed field's name and value on lines of their own, by name. The topic and the type end it, so that no text in
/// another field can stand for them.
pub(super) fn string_to_sign(envelope: &Envelope) -> String {
    let kind = envelope.kind.to_string();
    let always = |field, value| (field, Some(value));
    let (subject, subscribe_url, token) = match envelope.kind {
        Kind::Notification => (envelope.subject.as_deref(), None, None),
        Kind::SubscriptionConfirmation | Kind::UnsubscribeConfirmation => (
            None,
            envelope.subscribe_url.as_deref(),
            envelope.token.as_deref(),
        ),
    };
    let fields = [
        always("Message", envelope.message.as_str()),
        always("MessageId", envelope.message_id.as_str()),
        ("Subject", subject),
        ("SubscribeURL", subscribe_url),
        always("Timestamp", envelope.timestamp.as_str()),
        ("Token", token),
        always("TopicArn", envelope.topic_arn.as_str()),
        always("Type", kind.as_str()),
    ];
    let lines = fields
        .into_iter()
        .filter_map(|(field, value)| Some(format!("{field}\n{}\n", value?)));
    lines.collect()
}
