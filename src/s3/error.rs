//! What a failed S3 request means to feedmill.

use aws_sdk_s3::{
    config::http::HttpResponse,
    error::{ProvideErrorMetadata, SdkError},
};

use crate::{
    aws::no_credentials,
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
    /// The server does not store outputs the way the configuration asks (400, 501): storage class, encryption, KMS key.
    OptionRefused,
    /// Credentials or policy (401, 403), or there are no credentials to be had.
    Denied,
    /// This machine's own disk, on the way between S3 and S3.
    Disk,
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
            Self::OptionRefused => "s3_option_refused",
            Self::Denied => "s3_denied",
            Self::Disk => "worker_disk",
            Self::Unavailable => "s3_unavailable",
        }
    }
}

const OPTION_ADVICE: &str = "; outputs can't be stored as output.storage_class, output.encryption, output.kms_key_id and the other output settings ask";

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
        let text = service.and_then(ProvideErrorMetadata::message);
        let (failure, message) = match no_credentials(error) {
            Some(error) => (Failure::Denied, chain(error)),
            None if status == 0 => (Failure::Unavailable, chain(error)),
            None => {
                let text = text.unwrap_or_default();
                let failure = classify(operation, status, code, text);
                (failure, format!("HTTP {status} {code} {text}"))
            }
        };
        let advice = match failure {
            Failure::OptionRefused => OPTION_ADVICE,
            _ => "",
        };
        let message = cut(message.trim(), MESSAGE_BYTES - advice.len());
        Self {
            operation,
            failure,
            message: message + advice,
        }
    }

    /// This machine's disk is full, or broken.
    pub fn disk(operation: &'static str, message: impl std::fmt::Display) -> Self {
        Self {
            failure: Failure::Disk,
            ..Self::unavailable(operation, message)
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

/// The requests that say how an output is to be stored.
const WRITES: [&str; 2] = ["PutObject", "CreateMultipartUpload"];

fn classify(operation: &str, status: u16, code: &str, message: &str) -> Failure {
    match (status, code) {
        (_, "NoSuchBucket") => Failure::NoSuchBucket,
        (_, "NoSuchUpload") => Failure::NoSuchUpload,
        (_, "InvalidObjectState") => Failure::Archived,
        // A delete marker answers 405 to a read that names its version.
        (404 | 405, _) => Failure::NotFound,
        (412, _) => Failure::PreconditionFailed,
        (409, _) => Failure::Conflict,
        (401 | 403, _) => Failure::Denied,
        (400 | 501, code) if WRITES.contains(&operation) && is_about_options(code) => {
            Failure::OptionRefused
        }
        // What AWS says when an object under a KMS key is asked for without a signature.
        (400, _) if message.contains("AWS Signature Version 4") => Failure::Denied,
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

/// Whether a refused write is refused for how the output is to be stored. Servers have no code of their own for each
/// option; a key that can be read is a key that can be written.
fn is_about_options(code: &str) -> bool {
    let known = [
        "InvalidArgument",
        "InvalidEncryptionAlgorithmError",
        "InvalidRequest",
        "InvalidStorageClass",
        "NotImplemented",
    ];
    known.contains(&code) || code.starts_with("KMS.")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(status: u16, code: &str) -> Failure {
        classify("GetObject", status, code, "")
    }

    #[test]
    fn only_what_says_so_is_final_and_everything_else_may_pass() {
        assert_eq!(read(404, "NoSuchKey"), Failure::NotFound);
        assert_eq!(read(404, ""), Failure::NotFound);
        assert_eq!(read(404, "NoSuchBucket"), Failure::NoSuchBucket);
        assert_eq!(read(404, "NoSuchUpload"), Failure::NoSuchUpload);
        assert_eq!(read(412, "PreconditionFailed"), Failure::PreconditionFailed);
        assert_eq!(read(409, "ConditionalRequestConflict"), Failure::Conflict);
        assert_eq!(read(403, "InvalidObjectState"), Failure::Archived);
        assert_eq!(read(403, "AccessDenied"), Failure::Denied);
        assert_eq!(read(400, "InvalidArgument"), Failure::Refused);
        for status in [0, 400, 429, 500, 503] {
            assert_eq!(read(status, "SlowDown"), Failure::Unavailable);
        }
    }

    #[test]
    fn a_write_refused_for_its_options_is_no_fault_of_the_key_and_a_read_is_never_refused_for_them()
    {
        for operation in WRITES {
            for (status, code) in [
                (400, "InvalidStorageClass"),
                (400, "InvalidArgument"),
                (400, "InvalidRequest"),
                (400, "KMS.NotFoundException"),
                (501, "NotImplemented"),
            ] {
                let failure = classify(operation, status, code, "");
                assert_eq!(failure, Failure::OptionRefused, "{operation} {code}");
            }
            assert_eq!(
                classify(operation, 403, "AccessDenied", ""),
                Failure::Denied
            );
        }
        assert_eq!(read(400, "KMS.DisabledException"), Failure::Unavailable);
    }

    #[test]
    fn an_encrypted_object_that_is_read_without_a_signature_is_denied_and_not_a_bad_key() {
        let message = "Requests specifying Server Side Encryption with AWS KMS managed keys require AWS Signature Version 4.";
        let failure = classify("GetObject", 400, "InvalidArgument", message);
        assert_eq!(failure, Failure::Denied);
    }
}
