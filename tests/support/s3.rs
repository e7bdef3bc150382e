//! The S3 server as a partner and a consumer of outputs see it.

use std::collections::HashMap;
use std::env;
use std::time::Duration;

use anyhow::{Context, Result};
use aws_sdk_s3::Client;
use aws_sdk_s3::config::timeout::TimeoutConfig;
use aws_sdk_s3::config::{BehaviorVersion, Credentials, Region};
use aws_sdk_s3::types::EncodingType;
use aws_smithy_http_client::Builder;
use aws_smithy_http_client::tls::{Provider, rustls_provider::CryptoMode};
use feedmill::object::ETag;
use futures::{TryStreamExt, stream};
use percent_encoding::percent_decode_str;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
const OPERATION_TIMEOUT: Duration = Duration::from_secs(60);

/// Objects removed at a time.
const DELETES: usize = 16;

#[derive(Clone)]
pub struct Store {
    client: Client,
}

/// An object as it was read.
#[derive(Clone, Debug)]
pub struct Stored {
    pub bytes: Vec<u8>,
    pub etag: ETag,
    pub metadata: HashMap<String, String>,
    pub content_type: Option<String>,
    pub cache_control: Option<String>,
    pub content_encoding: Option<String>,
}

/// One entry of a listing.
#[derive(Clone, Debug)]
pub struct Listed {
    pub key: String,
    pub etag: ETag,
}

impl Store {
    pub fn connect(endpoint: &str) -> Self {
        let credentials = Credentials::new(
            variable("AWS_ACCESS_KEY_ID", "test"),
            variable("AWS_SECRET_ACCESS_KEY", "test"),
            env::var("AWS_SESSION_TOKEN").ok(),
            None,
            "environment",
        );
        Self::connect_as(endpoint, credentials)
    }

    /// With other credentials than those of the environment.
    pub fn connect_as(endpoint: &str, credentials: Credentials) -> Self {
        let timeouts = TimeoutConfig::builder()
            .connect_timeout(CONNECT_TIMEOUT)
            .operation_timeout(OPERATION_TIMEOUT)
            .build();
        let http = Builder::new()
            .tls_provider(Provider::Rustls(CryptoMode::Ring))
            .build_https();
        let config = aws_sdk_s3::Config::builder()
            .behavior_version(BehaviorVersion::latest())
            .endpoint_url(endpoint)
            .force_path_style(true)
            .region(Region::new(variable("AWS_REGION", "us-east-1")))
            .credentials_provider(credentials)
            .timeout_config(timeouts)
            .http_client(http)
            .build();
        Self {
            client: Client::from_conf(config),
        }
    }

    pub async fn create_bucket(&self, bucket: &str) -> Result<()> {
        let request = self.client.create_bucket().bucket(bucket).send();
        request
            .await
            .with_context(|| format!("create bucket {bucket}"))?;
        Ok(())
    }

    pub async fn put(&self, bucket: &str, key: &str, bytes: Vec<u8>) -> Result<ETag> {
        let request = self.client.put_object().bucket(bucket).key(key);
        let answer = request.body(bytes.into()).send().await;
        let answer = answer.with_context(|| format!("put s3://{bucket}/{key}"))?;
        etag(answer.e_tag()).with_context(|| format!("put s3://{bucket}/{key}"))
    }

    pub async fn delete(&self, bucket: &str, key: &str) -> Result<()> {
        let request = self.client.delete_object().bucket(bucket).key(key).send();
        request
            .await
            .with_context(|| format!("delete s3://{bucket}/{key}"))?;
        Ok(())
    }

    /// `None` when there is no such object.
    pub async fn get(&self, bucket: &str, key: &str) -> Result<Option<Stored>> {
        let request = self.client.get_object().bucket(bucket).key(key).send();
        let answer = match request.await {
            Ok(answer) => answer,
            Err(error) if error.as_service_error().is_some_and(|e| e.is_no_such_key()) => {
                return Ok(None);
            }
            Err(error) => return Err(error).with_context(|| format!("get s3://{bucket}/{key}")),
        };
        let etag = etag(answer.e_tag())?;
        let metadata = answer.metadata().cloned().unwrap_or_default();
        let content_type = answer.content_type().map(str::to_owned);
        let cache_control = answer.cache_control().map(str::to_owned);
        let content_encoding = answer.content_encoding().map(str::to_owned);
        let body = tokio::time::timeout(OPERATION_TIMEOUT, answer.body.collect()).await;
        let bytes = body.context("the body does not end")??.to_vec();
        Ok(Some(Stored {
            bytes,
            etag,
            metadata,
            content_type,
            cache_control,
            content_encoding,
        }))
    }

    pub async fn list(&self, bucket: &str) -> Result<Vec<Listed>> {
        let request = self.client.list_objects_v2().bucket(bucket);
        // XML cannot hold every key.
        let request = request.encoding_type(EncodingType::Url);
        let mut pages = request.into_paginator().send();
        let mut listed = Vec::new();
        while let Some(page) = pages.next().await {
            let page = page.with_context(|| format!("list {bucket}"))?;
            for object in page.contents() {
                listed.push(Listed {
                    key: decoded(object.key().context("an entry without a key")?)?,
                    etag: etag(object.e_tag())?,
                });
            }
        }
        Ok(listed)
    }

    /// Removes a bucket and everything in it.
    pub async fn remove_bucket(&self, bucket: &str) -> Result<()> {
        stream::iter(self.list(bucket).await?.into_iter().map(Ok))
            .try_for_each_concurrent(DELETES, |object| async move {
                self.delete(bucket, &object.key).await
            })
            .await?;
        let request = self.client.delete_bucket().bucket(bucket).send();
        request
            .await
            .with_context(|| format!("delete bucket {bucket}"))?;
        Ok(())
    }
}

fn variable(name: &str, default: &str) -> String {
    env::var(name).unwrap_or_else(|_| default.into())
}

fn decoded(key: &str) -> Result<String> {
    let key = key.replace('+', " ");
    Ok(percent_decode_str(&key).decode_utf8()?.into_owned())
}

fn etag(raw: Option<&str>) -> Result<ETag> {
    raw.and_then(ETag::parse)
        .context("an answer without an ETag")
}
