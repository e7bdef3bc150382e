//! Which client a bucket is reached with: the global settings, with what `s3.buckets` says of it laid over.
//!
//! Buckets with the same settings in force share a client, and with it connections and cached credentials. Credentials
//! named in the configuration are used as they are, before anything the environment has.

use std::collections::BTreeMap;

use aws_sdk_s3::{
    Client,
    config::{RequestChecksumCalculation, ResponseChecksumValidation},
};

use crate::{aws::Base, config, telemetry::metrics::S3Metrics};

/// What stands for AWS where another server is the usual one.
const AWS: &str = "aws";

/// The clients, by bucket.
#[derive(Clone)]
pub struct Accounts {
    settings: config::S3,
    metrics: Option<S3Metrics>,
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
        let base = Base::load(settings).await;
        let mut made = Vec::new();
        let usual = reached(&base, &mut made, Account::usual(settings)).await;
        let mut named = BTreeMap::new();
        for (name, bucket) in &settings.buckets {
            let account = Account::of(settings, bucket);
            named.insert(name.clone(), reached(&base, &mut made, account).await);
        }
        Self {
            settings: settings.clone(),
            metrics: None,
            usual,
            named,
        }
    }

    /// The same, with every request counted.
    pub fn counted(mut self, metrics: S3Metrics) -> Self {
        for reached in self.named.values_mut().chain([&mut self.usual]) {
            reached.client = metrics.counting(&reached.client);
        }
        self.metrics = Some(metrics);
        self
    }

    /// The clients of changed settings; with unchanged ones the same, with their connections and credentials.
    pub async fn renewed(&self, settings: &config::S3) -> Self {
        match self.settings == *settings {
            true => self.clone(),
            false => {
                let renewed = Self::new(settings).await;
                match self.metrics.clone() {
                    Some(metrics) => renewed.counted(metrics),
                    None => renewed,
                }
            }
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

/// Whether two buckets are on one server and reached with the same credentials, so that it can copy from one to the other.
pub fn can_copy(settings: &config::S3, from: &str, to: &str) -> bool {
    let account = |bucket: &str| match settings.buckets.get(bucket) {
        Some(named) => Account::of(settings, named),
        None => Account::usual(settings),
    };
    let (from, to) = (account(from), account(to));
    from.endpoint == to.endpoint && from.credentials == to.credentials
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

async fn client(base: &Base, account: &Account) -> Client {
    let sdk = base
        .sdk(account.region.as_deref(), &account.credentials)
        .await;
    let mut builder = aws_sdk_s3::config::Builder::from(&sdk)
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
        let base = Base::load(&settings).await;
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
}
