//! Which client a bucket is reached with: the global settings, with what `s3.buckets` says of it laid over.
//!
//! Buckets with the same settings in force share a client, and with it connections and cached credentials. Credentials
//! named in the configuration are used as they are, before anything the environment has.

use std::{collections::BTreeMap, fs, time::Duration};

use aws_config::{
    BehaviorVersion, Region, SdkConfig,
    profile::ProfileFileCredentialsProvider,
    provider_config::ProviderConfig,
    retry::RetryConfig,
    sts::AssumeRoleProvider,
    timeout::{TimeoutConfig, TimeoutConfigBuilder},
};
use aws_credential_types::{
    Credentials,
    provider::{self, ProvideCredentials, SharedCredentialsProvider, error::CredentialsError},
};
use aws_sdk_s3::{
    Client,
    config::{
        RequestChecksumCalculation, ResponseChecksumValidation, SharedHttpClient,
        StalledStreamProtectionConfig,
    },
};
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

/// Region when neither the configuration nor the SDK's chain names one: S3 servers other than AWS rarely care.
const FALLBACK_REGION: &str = "us-east-1";

/// What stands for AWS where another server is the usual one.
const AWS: &str = "aws";

/// The clients, by bucket.
#[derive(Clone)]
pub struct Accounts {
    settings: config::S3,
    usual: Reached,
    named: BTreeMap<String, Reached>,
}

#[derive(Clone)]
struct Reached {
    client: Client,
    anonymous: bool,
}

impl Accounts {
    /// Builds the clients; no server is asked yet, except for a region that nobody names.
    pub async fn new(settings: &config::S3) -> Self {
        let base = base(settings).await;
        let mut made = Vec::new();
        let usual = reached(&base, &mut made, Account::usual(settings)).await;
        let mut named = BTreeMap::new();
        for (name, bucket) in &settings.buckets {
            let account = Account::of(settings, bucket);
            named.insert(name.clone(), reached(&base, &mut made, account).await);
        }
        Self {
            settings: settings.clone(),
            usual,
            named,
        }
    }

    /// The clients of changed settings; with unchanged ones the same, with their connections and credentials.
    pub async fn renewed(&self, settings: &config::S3) -> Self {
        match self.settings == *settings {
            true => self.clone(),
            false => Self::new(settings).await,
        }
    }

    /// The client for a bucket.
    pub fn of(&self, bucket: &str) -> &Client {
        &self.reached(bucket).client
    }

    /// Whether requests about a bucket are not signed.
    pub fn is_anonymous(&self, bucket: &str) -> bool {
        self.reached(bucket).anonymous
    }

    fn reached(&self, bucket: &str) -> &Reached {
        self.named.get(bucket).unwrap_or(&self.usual)
    }
}

/// The settings in force for a bucket.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Account {
    endpoint: Endpoint,
    region: Option<String>,
    path_style: bool,
    credentials: config::Credentials,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Endpoint {
    /// AWS, unless the SDK's own settings (`AWS_ENDPOINT_URL_S3`) name another.
    Unsaid,
    /// AWS, whatever the SDK's own settings name.
    Aws,
    Url(String),
}

impl Endpoint {
    fn named(endpoint: &str) -> Self {
        match endpoint {
            AWS => Self::Aws,
            url => Self::Url(url.to_owned()),
        }
    }
}

impl Account {
    fn usual(settings: &config::S3) -> Self {
        let endpoint = settings.endpoint.as_deref();
        Self {
            endpoint: endpoint.map_or(Endpoint::Unsaid, Endpoint::named),
            region: settings.region.clone(),
            path_style: settings.path_style,
            credentials: settings.credentials.clone(),
        }
    }

    /// Each setting of the bucket replaces the usual one; the path style of another server says nothing of AWS.
    fn of(settings: &config::S3, bucket: &config::Bucket) -> Self {
        let usual = Self::usual(settings);
        let endpoint = bucket.endpoint.as_deref().map(Endpoint::named);
        let path_style = match endpoint {
            Some(Endpoint::Aws) => false,
            _ => usual.path_style,
        };
        Self {
            endpoint: endpoint.unwrap_or(usual.endpoint),
            region: bucket.region.clone().or(usual.region),
            path_style: bucket.path_style.unwrap_or(path_style),
            credentials: bucket.credentials.clone().unwrap_or(usual.credentials),
        }
    }
}

/// The client of an account; one that was made before is used again.
async fn reached(base: &Base, made: &mut Vec<(Account, Client)>, account: Account) -> Reached {
    let anonymous = account.credentials.anonymous;
    let known = made.iter().find(|(known, _)| *known == account);
    let client = match known {
        Some((_, client)) => client.clone(),
        None => {
            let client = client(base, &account).await;
            made.push((account, client.clone()));
            client
        }
    };
    Reached { client, anonymous }
}

/// What all accounts have in common: connections, time limits, and the SDK's ordinary chain of credentials.
struct Base {
    http: SharedHttpClient,
    sdk: SdkConfig,
}

async fn base(settings: &config::S3) -> Base {
    // rustls on ring, with the certificates the operating system trusts.
    let http = Builder::new()
        .tls_provider(Provider::Rustls(CryptoMode::Ring))
        .build_https();
    let loader = aws_config::defaults(BehaviorVersion::latest())
        .http_client(http.clone())
        .timeout_config(timeouts(settings).build())
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
    Base {
        http,
        sdk: sdk.into_builder().region(region).build(),
    }
}

fn timeouts(settings: &config::S3) -> TimeoutConfigBuilder {
    TimeoutConfig::builder()
        .connect_timeout(Duration::from_millis(settings.connect_timeout_ms))
        .read_timeout(Duration::from_millis(settings.read_timeout_ms))
        .operation_attempt_timeout(ATTEMPT_TIMEOUT)
}

async fn client(base: &Base, account: &Account) -> Client {
    let region = account.region.clone().map(Region::new);
    let region = region.or(base.sdk.region().cloned());
    let sdk = base.sdk.to_builder().region(region).build();
    let credentials = credentials(base, &sdk, &account.credentials).await;
    // Taken from the SDK's settings too: its builder for S3 keeps what it has when it is told `None`.
    let mut sdk = sdk.into_builder();
    sdk.set_credentials_provider(credentials);
    let mut builder = aws_sdk_s3::config::Builder::from(&sdk.build())
        .force_path_style(account.path_style)
        // Trailing checksums are AWS's own; other servers refuse or store them.
        .request_checksum_calculation(RequestChecksumCalculation::WhenRequired)
        .response_checksum_validation(ResponseChecksumValidation::WhenRequired);
    match &account.endpoint {
        Endpoint::Unsaid => {}
        Endpoint::Aws => _ = builder.set_endpoint_url(None),
        Endpoint::Url(url) => _ = builder.set_endpoint_url(Some(url.clone())),
    }
    if account.credentials.anonymous {
        builder.set_allow_no_auth();
    }
    Client::from_conf(builder.build())
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

    fn settings(toml: &str) -> config::S3 {
        toml::from_str(toml).unwrap()
    }

    fn of(settings: &config::S3, bucket: &str) -> Account {
        Account::of(settings, &settings.buckets[bucket])
    }

    const USUAL: &str = r#"
        endpoint = "http://s3.example.com"
        region = "eu-1"
        path_style = true
        credentials = { access_key_id = "id", secret_access_key = "hush-4711" }
    "#;

    #[test]
    fn what_a_bucket_does_not_say_is_as_for_all_others() {
        let settings = settings(&format!("{USUAL}\n[buckets.a]"));
        assert_eq!(of(&settings, "a"), Account::usual(&settings));
    }

    #[test]
    fn each_setting_of_a_bucket_replaces_the_usual_one_and_credentials_as_a_whole() {
        let settings = settings(&format!(
            "{USUAL}
            [buckets.a]
            endpoint = \"http://other.example.com\"
            [buckets.b]
            region = \"us-2\"
            path_style = false
            credentials = {{ profile = \"partner\" }}"
        ));
        let usual = Account::usual(&settings);
        let elsewhere = Account {
            endpoint: Endpoint::Url("http://other.example.com".into()),
            ..usual.clone()
        };
        assert_eq!(of(&settings, "a"), elsewhere);
        let b = of(&settings, "b");
        assert_eq!(b.endpoint, usual.endpoint);
        assert_eq!((b.region.as_deref(), b.path_style), (Some("us-2"), false));
        assert_eq!(b.credentials.profile.as_deref(), Some("partner"));
        assert_eq!(b.credentials.access_key_id, None);
    }

    #[test]
    fn a_bucket_on_aws_has_no_path_style_unless_it_says_so() {
        let settings = settings(&format!(
            "{USUAL}
            [buckets.a]
            endpoint = \"aws\"
            [buckets.b]
            endpoint = \"aws\"
            path_style = true"
        ));
        let (a, b) = (of(&settings, "a"), of(&settings, "b"));
        assert_eq!((a.endpoint, a.path_style), (Endpoint::Aws, false));
        assert_eq!((b.endpoint, b.path_style), (Endpoint::Aws, true));
    }

    #[tokio::test]
    async fn accounts_that_are_the_same_share_a_client() {
        let settings = settings(&format!(
            "{USUAL}
            [buckets.a]
            region = \"eu-1\"
            [buckets.b]
            region = \"us-2\"
            [buckets.c]
            region = \"us-2\""
        ));
        let base = base(&settings).await;
        let mut made = Vec::new();
        reached(&base, &mut made, Account::usual(&settings)).await;
        for bucket in ["a", "b", "c"] {
            reached(&base, &mut made, of(&settings, bucket)).await;
        }
        assert_eq!(made.len(), 2);
    }

    #[test]
    fn no_secret_is_shown() {
        let shown = format!("{:?}", Account::usual(&settings(USUAL)));
        assert!(shown.contains("s3.example.com") && !shown.contains("hush-4711"));
    }

    #[test]
    fn the_name_of_a_session_is_one_that_sts_takes() {
        let name = session_name();
        assert!((2..=64).contains(&name.len()), "{name}");
        assert!(name.starts_with("feedmill-"), "{name}");
        let allowed = |c: char| c.is_ascii_alphanumeric() || "_+=,.@-".contains(c);
        assert!(name.chars().all(allowed), "{name}");
    }
}
