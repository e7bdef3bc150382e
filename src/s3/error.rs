//! What a failed S3 request means to feedmill.

use aws_sdk_s3::{
    config::http::HttpResponse,
    error::{ProvideErrorMetadata, SdkError},
};

use crate::{
    failure::chain,
    topics::{MESSAGE_BYTES, cut},
};

/// The kinds that something is decided by; everything else may pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failure {
    /// No such object (404).
    NotFound,
    /// The bucket is not there (404 NoSuchBucket): a matter of configuration, not of the object.
    NoSuchBucket,
    /// A condition on an ETag does not hold (412).
    PreconditionFailed,
    /// Somebody else is writing the same key (409).
    Conflict,
    /// The multipart upload is gone (404 NoSuchUpload).
    NoSuchUpload,
    /// The object is in an archive and can't be read (403 InvalidObjectState).
    Archived,
    /// The server does not take such a key (400), whoever asks and whenever.
    Refused,
    /// Credentials or policy (401, 403).
    Denied,
    /// Anything that may pass: 5xx, throttling, time-outs, connections.
    Unavailable,
}

impl Failure {
    /// Reason code, as results, logs and metrics name it.
    pub fn code(self) -> &'static str {
        match self {
            Self::NotFound => "s3_not_found",
            Self::NoSuchBucket => "s3_no_such_bucket",
            Self::PreconditionFailed => "s3_precondition_failed",
            Self::Conflict => "s3_conflict",
            Self::NoSuchUpload => "s3_no_such_upload",
            Self::Archived => "object_archived",
            Self::Refused => "s3_refused",
            Self::Denied => "s3_denied",
            Self::Unavailable => "s3_unavailable",
        }
    }
}

/// A failed S3 request.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{operation}: {message}")]
pub struct S3Error {
    pub operation: &'static str,
    pub failure: Failure,
    /// What the server or the client library said, cut.
    pub message: String,
}

impl S3Error {
    pub fn new<E>(operation: &'static str, error: &SdkError<E, HttpResponse>) -> Self
    where
        E: ProvideErrorMetadata + std::error::Error + 'static,
    {
        let status = error
            .raw_response()
            .map_or(0, |response| response.status().as_u16());
        let service = error.as_service_error();
        let code = service
            .and_then(ProvideErrorMetadata::code)
            .unwrap_or_default();
        let message = match (status, service.and_then(ProvideErrorMetadata::message)) {
            (0, _) => chain(error),
            (status, text) => format!("HTTP {status} {code} {}", text.unwrap_or_default()),
        };
        let no_credentials = status == 0 && message.contains("no credentials");
        let failure = match no_credentials {
            true => Failure::Denied,
            false => classify(status, code),
        };
        Self {
            operation,
            failure,
            message: cut(message.trim(), MESSAGE_BYTES),
        }
    }

    /// A failure outside a request: a body that broke off, a time limit of ours.
    pub fn unavailable(operation: &'static str, message: impl std::fmt::Display) -> Self {
        Self {
            operation,
            failure: Failure::Unavailable,
            message: cut(&message.to_string(), MESSAGE_BYTES),
        }
    }
}

fn classify(status: u16, code: &str) -> Failure {
    match (status, code) {
        (_, "NoSuchBucket") => Failure::NoSuchBucket,
        (_, "NoSuchUpload") => Failure::NoSuchUpload,
        (_, "InvalidObjectState") => Failure::Archived,
        // A delete marker answers 405 to a read that names its version.
        (404 | 405, _) => Failure::NotFound,
        (412, _) => Failure::PreconditionFailed,
        (409, _) => Failure::Conflict,
        (401 | 403, _) => Failure::Denied,
        // Other 400s are about credentials, clocks and bodies that broke off.
        (
            400,
            "InvalidRequest"
            | "InvalidArgument"
            | "InvalidURI"
            | "KeyTooLongError"
            | "XMinioInvalidObjectName",
        ) => Failure::Refused,
        _ => Failure::Unavailable,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_says_so_is_final_and_everything_else_may_pass() {
        assert_eq!(classify(404, "NoSuchKey"), Failure::NotFound);
        assert_eq!(classify(404, ""), Failure::NotFound);
        assert_eq!(classify(404, "NoSuchBucket"), Failure::NoSuchBucket);
        assert_eq!(classify(404, "NoSuchUpload"), Failure::NoSuchUpload);
        assert_eq!(
            classify(412, "PreconditionFailed"),
            Failure::PreconditionFailed
        );
        assert_eq!(
            classify(409, "ConditionalRequestConflict"),
            Failure::Conflict
        );
        assert_eq!(classify(403, "InvalidObjectState"), Failure::Archived);
        assert_eq!(classify(403, "AccessDenied"), Failure::Denied);
        for status in [0, 400, 429, 500, 503] {
            assert_eq!(classify(status, "SlowDown"), Failure::Unavailable);
        }
    }
}
