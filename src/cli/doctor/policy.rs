//! The IAM policy statements that grant what is missing in S3.

use serde_json::json;

/// What feedmill does with a bucket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Also what tells an object that is not there (404) from one that may not be seen (403).
    List,
    Read,
    Write,
    /// Of the scratch key that probes conditional writes.
    DeleteScratch,
    /// Sources deleted on a condition, which is tried on a scratch key first.
    CleanUp,
}

/// The statement that allows it, on one line.
pub fn statement(bucket: &str, access: Access) -> String {
    let bucket = format!("arn:aws:s3:::{bucket}");
    let (actions, resource) = match access {
        Access::List => (vec!["s3:ListBucket"], bucket),
        Access::Read => (
            vec!["s3:GetObject", "s3:GetObjectVersion"],
            format!("{bucket}/*"),
        ),
        Access::Write => (
            vec!["s3:PutObject", "s3:AbortMultipartUpload"],
            format!("{bucket}/*"),
        ),
        Access::DeleteScratch => (
            vec!["s3:DeleteObject", "s3:DeleteObjectVersion"],
            format!("{bucket}/.feedmill-probe/*"),
        ),
        Access::CleanUp => (
            vec!["s3:GetObject", "s3:PutObject", "s3:DeleteObject"],
            format!("{bucket}/*"),
        ),
    };
    json!({ "Effect": "Allow", "Action": actions, "Resource": resource }).to_string()
}
