//! What the clients of AWS's services have in common: connections, time limits, a region, and credentials.

use std::{error::Error, fs, time::Duration};

use aws_config::{
    BehaviorVersion, Region, SdkConfig, profile::ProfileFileCredentialsProvider,
    provider_config::ProviderConfig, retry::RetryConfig, sts::AssumeRoleProvider,
    timeout::TimeoutConfig,
};
use aws_credential_types::{
    Credentials,
    provider::{self, ProvideCredentials, SharedCredentialsProvider, error::CredentialsError},
};
use aws_sdk_s3::config::{SharedHttpClient, StalledStreamProtectionConfig};
use aws_smithy_http_client::{
    Builder,
    tls::{Provider, rustls_provider::CryptoMode},
};
use tokio::time::timeout;

use crate::config;

/// Longest time of one try of a request, up to the response's headers; covers the upload of one part on a slow line.
const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(120);

/// Longest time of assuming a role, all tries of it.
const ROLE_TIMEOUT: Duration = Duration::from_secs(20);

/// Region when neither the configuration nor the SDK's chain names one: servers other than AWS's rarely care.
const FALLBACK_REGION: &str = "us-east-1";

/// TLS by rustls on ring, with the certificates that the operating system trusts.
pub const TLS: Provider = Provider::Rustls(CryptoMode::Ring);

/// What all accounts share: connections, time limits, and the SDK's ordinary chain of credentials.
pub struct Base {
    http: SharedHttpClient,
    sdk: SdkConfig,
}

impl Base {
    /// With the time limits and tries of `[s3]`; no server is asked, except for a region that nobody names.
    pub async fn load(settings: &config::S3) -> Self {
        let http = Builder::new().tls_provider(TLS).build_https();
        let timeouts = TimeoutConfig::builder()
            .connect_timeout(Duration::from_millis(settings.connect_timeout_ms))
            .read_timeout(Duration::from_millis(settings.read_timeout_ms))
            .operation_attempt_timeout(ATTEMPT_TIMEOUT)
            .build();
        let loader = aws_config::defaults(BehaviorVersion::latest())
            .http_client(http.clone())
            .timeout_config(timeouts)
            .retry_config(RetryConfig::standard().with_max_attempts(settings.max_attempts.max(1)))
            // Bodies are read with a time limit of our own, and writers wait for the converter.
            .stalled_stream_protection(StalledStreamProtectionConfig::disabled());
        let loader = match &settings.region {
            Some(region) => loader.region(Region::new(region.clone())),
            None => loader,
        };
        let sdk = loader.load().await;
        let region = sdk.region().cloned();
        let region = region.unwrap_or(Region::from_static(FALLBACK_REGION));
        Self {
            http,
            sdk: sdk.into_builder().region(region).build(),
        }
    }

    /// The settings of a client in this region, or the usual one, with these credentials; none at all when they are
    /// anonymous.
    pub async fn sdk(&self, region: Option<&str>, wanted: &config::Credentials) -> SdkConfig {
        let region = region.map(|region| Region::new(region.to_owned()));
        let region = region.or(self.sdk.region().cloned());
        let sdk = self.sdk.to_builder().region(region).build();
        let credentials = credentials(self, &sdk, wanted).await;
        // Set here: the builders of the services' own settings keep what they have when they are told `None`.
        let mut sdk = sdk.into_builder();
        sdk.set_credentials_provider(credentials);
        sdk.build()
    }
}

/// Why there were no credentials to send a request with, if that is what it failed of.
pub fn no_credentials<'a>(error: &'a (dyn Error + 'static)) -> Option<&'a (dyn Error + 'static)> {
    match error.is::<CredentialsError>() {
        true => Some(error),
        false => error.source().and_then(no_credentials),
    }
}

/// Where an account's credentials come from; `None` for requests that are not signed.
async fn credentials(
    base: &Base,
    sdk: &SdkConfig,
    wanted: &config::Credentials,
) -> Option<SharedCredentialsProvider> {
    if wanted.anonymous {
        return None;
    }
    let own = match (&wanted.access_key_id, &wanted.secret_access_key) {
        (Some(id), Some(secret)) => {
            let token = wanted.session_token.as_ref();
            Some(SharedCredentialsProvider::new(Credentials::new(
                id,
                secret.expose(),
                token.map(|token| token.expose().to_owned()),
                None,
                "feedmill.toml",
            )))
        }
        _ => wanted.profile.as_ref().map(|name| profile(base, sdk, name)),
    };
    let own = own.or(sdk.credentials_provider());
    let (Some(arn), Some(base)) = (&wanted.role_arn, own.clone()) else {
        return own;
    };
    let role = AssumeRoleProvider::builder(arn)
        .configure(sdk)
        .session_name(session_name());
    let role = match &wanted.external_id {
        Some(id) => role.external_id(id),
        None => role,
    };
    Some(SharedCredentialsProvider::new(Role {
        arn: arn.clone(),
        provider: role.build_from_provider(base).await,
    }))
}

/// The credentials of a profile of the SDK's files. The ordinary chain would ask the environment first.
fn profile(base: &Base, sdk: &SdkConfig, name: &str) -> SharedCredentialsProvider {
    let mut how = ProviderConfig::without_region()
        .with_region(sdk.region().cloned())
        .with_http_client(base.http.clone());
    if let Some(timeouts) = sdk.timeout_config() {
        how = how.with_timeout_config(timeouts.clone());
    }
    let profile = ProfileFileCredentialsProvider::builder()
        .configure(&how)
        .profile_name(name);
    SharedCredentialsProvider::new(profile.build())
}

/// How the role's owner sees us in his logs: `feedmill-` and the host's name, of the characters that STS allows.
fn session_name() -> String {
    const MOST: usize = 64;
    let host = fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let host = host.trim().replace(
        |c: char| !c.is_ascii_alphanumeric() && !"-_.".contains(c),
        "-",
    );
    let name = format!("feedmill-{host}");
    name.chars().take(MOST).collect()
}

/// The credentials of an assumed role, kept and renewed by the client that uses them. A failure names the role.
#[derive(Debug)]
struct Role {
    arn: String,
    provider: AssumeRoleProvider,
}

#[derive(Debug, thiserror::Error)]
#[error("assume the role {arn}")]
struct RoleError {
    arn: String,
    source: CredentialsError,
}

impl Role {
    async fn assume(&self) -> provider::Result {
        let assumed = timeout(ROLE_TIMEOUT, self.provider.provide_credentials()).await;
        assumed
            .unwrap_or_else(|_| Err(CredentialsError::provider_timed_out(ROLE_TIMEOUT)))
            .map_err(|source| {
                CredentialsError::provider_error(RoleError {
                    arn: self.arn.clone(),
                    source,
                })
            })
    }
}

impl ProvideCredentials for Role {
    fn provide_credentials<'a>(&'a self) -> provider::future::ProvideCredentials<'a>
    where
        Self: 'a,
    {
        provider::future::ProvideCredentials::new(self.assume())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_of_a_session_is_one_that_sts_takes() {
        let name = session_name();
        assert!((2..=64).contains(&name.len()), "{name}");
        assert!(name.starts_with("feedmill-"), "{name}");
        let allowed = |c: char| c.is_ascii_alphanumeric() || "_+=,.@-".contains(c);
        assert!(name.chars().all(allowed), "{name}");
    }
}
