//! How outputs are stored: the configuration's output options in a request.
//!
//! They decide neither an output's bytes nor its key, so they are no part of a feed's mapping hash: a changed option holds
//! from the next conversion on, and `reconvert` brings it to outputs that stand already.

use aws_sdk_s3::{
    operation::{
        create_multipart_upload::builders::CreateMultipartUploadFluentBuilder,
        put_object::builders::PutObjectFluentBuilder,
    },
    types::{ServerSideEncryption, StorageClass},
};

use crate::config::{Encryption, Output};

/// An output in one request.
pub fn put(request: PutObjectFluentBuilder, output: &Output) -> PutObjectFluentBuilder {
    request
        .set_cache_control(output.cache_control.clone())
        .set_storage_class(storage_class(output))
        .set_server_side_encryption(encryption(output))
        .set_ssekms_key_id(output.kms_key_id.clone())
}

/// An output in parts: its options are said when the upload begins.
pub fn multipart(
    request: CreateMultipartUploadFluentBuilder,
    output: &Output,
) -> CreateMultipartUploadFluentBuilder {
    request
        .set_cache_control(output.cache_control.clone())
        .set_storage_class(storage_class(output))
        .set_server_side_encryption(encryption(output))
        .set_ssekms_key_id(output.kms_key_id.clone())
}

fn storage_class(output: &Output) -> Option<StorageClass> {
    output.storage_class.as_deref().map(StorageClass::from)
}

fn encryption(output: &Output) -> Option<ServerSideEncryption> {
    output.encryption.map(|encryption| match encryption {
        Encryption::Aes256 => ServerSideEncryption::Aes256,
        Encryption::Kms => ServerSideEncryption::AwsKms,
    })
}
