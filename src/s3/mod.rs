//! The S3 client: one for the process, with time limits on everything and no retries of its own beyond the configured few.
//!
//! [`error`] says what an answer means to feedmill; [`probe`] finds out at start whether the server keeps its promises.

pub mod error;
pub mod probe;

use std::time::Duration;

use aws_config::{BehaviorVersion, Region, retry::RetryConfig, timeout::TimeoutConfig};
use aws_sdk_s3::{
    Client,
    config::{
        RequestChecksumCalculation, ResponseChecksumValidation, StalledStreamProtectionConfig,
    },
};
use aws_smithy_http_client::{
    Builder,
    tls::{Provider, rustls_provider::CryptoMode},
};

use crate::config;

pub use error::{Failure, S3Error};

/// Longest time of one try of a request, up to the response's headers; covers the upload of one part on a slow line.
const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(120);

/// Region when neither the configuration nor the SDK's chain names one: S3 servers other than AWS rarely care.
const FALLBACK_REGION: &str = "us-east-1";

/// Builds the client. Credentials and region come by the SDK's ordinary chain (environment, profile, instance role).
pub async fn client(settings: &config::S3) -> Client {
    // rustls on ring, with the certificates the operating system trusts.
    let http = Builder::new()
        .tls_provider(Provider::Rustls(CryptoMode::Ring))
        .build_https();
    let timeouts = TimeoutConfig::builder()
        .connect_timeout(Duration::from_millis(settings.connect_timeout_ms))
        .read_timeout(Duration::from_millis(settings.read_timeout_ms))
        .operation_attempt_timeout(ATTEMPT_TIMEOUT)
        .build();
    let mut loader = aws_config::defaults(BehaviorVersion::latest())
        .http_client(http)
        .timeout_config(timeouts)
        .retry_config(RetryConfig::standard().with_max_attempts(settings.max_attempts.max(1)))
        // Bodies are read with a time limit of our own, and writers wait for the converter.
        .stalled_stream_protection(StalledStreamProtectionConfig::disabled());
    if let Some(region) = &settings.region {
        loader = loader.region(Region::new(region.clone()));
    }
    let shared = loader.load().await;
    let mut builder = aws_sdk_s3::config::Builder::from(&shared)
        .force_path_style(settings.path_style)
        // Trailing checksums are AWS's own; other servers refuse or store them.
        .request_checksum_calculation(RequestChecksumCalculation::WhenRequired)
        .response_checksum_validation(ResponseChecksumValidation::WhenRequired);
    if let Some(endpoint) = &settings.endpoint {
        builder = builder.endpoint_url(endpoint);
    }
    if shared.region().is_none() {
        builder = builder.region(Region::new(FALLBACK_REGION));
    }
    Client::from_conf(builder.build())
}
