//! One bucket beside those of a world, or one of them seen more closely.

use std::env;

use aws_sdk_s3::Client;
use aws_sdk_s3::config::{BehaviorVersion, Credentials, Region};
use aws_sdk_s3::primitives::DateTime;
use aws_smithy_http_client::Builder;
use aws_smithy_http_client::tls::{Provider, rustls_provider::CryptoMode};

use crate::support::Stack;

pub struct Bucket {
    client: Client,
    name: String,
}

impl Bucket {
    pub fn named(stack: &Stack, name: impl Into<String>) -> Self {
        let variable = |name| env::var(name).unwrap_or_else(|_| "test".into());
        let credentials = Credentials::new(
            variable("AWS_ACCESS_KEY_ID"),
            variable("AWS_SECRET_ACCESS_KEY"),
            env::var("AWS_SESSION_TOKEN").ok(),
            None,
            "environment",
        );
        let http = Builder::new()
            .tls_provider(Provider::Rustls(CryptoMode::Ring))
            .build_https();
        let config = aws_sdk_s3::Config::builder()
            .behavior_version(BehaviorVersion::latest())
            .endpoint_url(&stack.s3_endpoint)
            .force_path_style(true)
            .region(Region::new("us-east-1"))
            .credentials_provider(credentials)
            .http_client(http)
            .build();
        Self {
            client: Client::from_conf(config),
            name: name.into(),
        }
    }

    pub async fn create(&self) {
        let request = self.client.create_bucket().bucket(&self.name).send();
        request.await.expect("the bucket can be made");
    }

    /// Removes it; it must be empty.
    pub async fn remove(&self) {
        let request = self.client.delete_bucket().bucket(&self.name).send();
        request.await.expect("the bucket can be removed");
    }

    pub async fn delete(&self, key: &str) {
        let request = self.client.delete_object().bucket(&self.name).key(key);
        request.send().await.expect("the object can be removed");
    }

    /// When an object was written, to the second.
    pub async fn written_at(&self, key: &str) -> DateTime {
        let request = self.client.head_object().bucket(&self.name).key(key).send();
        let answer = request.await.expect("the object is there");
        *answer.last_modified().expect("a time of writing")
    }

    /// Whether the server takes an object of this key at all.
    pub async fn takes(&self, key: &str, bytes: &[u8]) -> bool {
        let request = self.client.put_object().bucket(&self.name).key(key);
        request.body(bytes.to_vec().into()).send().await.is_ok()
    }
}
