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

#[cfg(test)]
mod tests {
    use aws_sdk_s3::{Client, Config};

    use super::*;

    fn both(output: &Output) -> (PutObjectFluentBuilder, CreateMultipartUploadFluentBuilder) {
        let config = Config::builder().behavior_version_latest().build();
        let s3 = Client::from_conf(config);
        (
            put(s3.put_object(), output),
            multipart(s3.create_multipart_upload(), output),
        )
    }

    #[test]
    fn nothing_is_said_of_what_is_left_to_the_bucket() {
        let (put, multipart) = both(&Output::default());
        assert_eq!(*put.get_storage_class(), None);
        assert_eq!(*put.get_server_side_encryption(), None);
        assert_eq!(*multipart.get_storage_class(), None);
        assert_eq!(*multipart.get_server_side_encryption(), None);
    }

    #[test]
    fn each_encryption_is_said_by_its_own_name() {
        for (encryption, said) in [
            (Encryption::Aes256, ServerSideEncryption::Aes256),
            (Encryption::Kms, ServerSideEncryption::AwsKms),
        ] {
            let output = Output {
                encryption: Some(encryption),
                ..Output::default()
            };
            let (put, multipart) = both(&output);
            assert_eq!(put.get_server_side_encryption().as_ref(), Some(&said));
            assert_eq!(multipart.get_server_side_encryption().as_ref(), Some(&said));
        }
    }
}
