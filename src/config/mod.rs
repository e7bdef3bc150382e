//! Configuration: what `feedmill.toml`, its profiles and the environment say, as one typed value.
//!
//! In: a TOML file, the name of one of its profiles, environment variables. Out: [`Config`], or a message that names
//! the setting, where it was written, and what to do. Promise: nothing written is ignored (an unknown key is an error),
//! and everything has a default but `kafka.brokers`, `output.bucket` and the feeds.
//!
//! * [`load`]: the layers, defaults < file < profile < environment; [`partners`]: the folder of feeds, one file a partner
//! * [`check`]: what types cannot say: collisions, loops, shadowed feeds, unsafe listening
//! * [`documents`]: the jq programs and schemas that feeds keep in files of their own
//! * [`pause`]: lengths of time, `"3h"`; [`bytes`]: amounts of memory, `"512 MiB"`; [`Retry`]: what happens to files whose server fails
//! * [`matcher`]: which feed an object belongs to; [`exclude`]: which belong to none; [`template`]: which key its output gets;
//!   [`queue_url`] and [`topic_arn`]: where a queue or a topic is
//! * [`Kafka`]: its settings; [`After`]: what becomes of sources afterwards
//! * [`show`]: the settings in force, secrets hidden; [`diff`]: which of them a running process can't take over

mod after;
pub mod bytes;
mod check;
mod de;
mod diff;
mod documents;
pub mod exclude;
mod feed;
mod fields;
mod kafka;
mod layer;
mod load;
pub mod matcher;
mod partners;
pub mod pause;
pub mod queue_url;
mod retry;
mod secret;
mod setting_error;
mod show;
mod suggest;
pub mod template;
#[cfg(test)]
mod testing;
pub mod topic_arn;

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::feed::Limits;

pub use after::{After, Place, Tag};
pub use check::{Finding, Severity, check};
pub use diff::{reloaded, restart_needed};
pub use documents::DocumentError;
pub use feed::Feed;
pub use kafka::{Commit, Kafka, SaslMechanism, Security, SecurityProtocol};
pub use load::{ConfigError, Loaded, Sources, load};
pub use partners::{files as feed_files, read_file as read_feed_file};
pub use retry::{Breaker, Retry, Tier};
pub use secret::{Properties, Secret};
pub use setting_error::SettingError;
pub use show::show;

const MIB: usize = 1024 * 1024;

/// Everything feedmill can be told.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    pub kafka: Kafka,
    pub s3: S3,
    pub intake: Intake,
    pub sweep: Sweep,
    pub convert: Convert,
    pub memory: Memory,
    pub retry: Retry,
    pub dead_letters: DeadLetters,
    pub output: Output,
    pub state: State,
    pub admin: Admin,
    pub log: Log,
    pub shutdown: Shutdown,
    /// Folder of further `*.toml` files with feeds, one file a partner; relative to the configuration file. Left out: `feeds.d`, if
    /// it is there. Empty: none.
    pub feeds_dir: Option<PathBuf>,
    /// The partners' feeds; the first whose `match` fits an object converts it. Those of the folder follow, by file name.
    pub feeds: Vec<Feed>,
}

impl Config {
    /// The buckets that feeds in use read from.
    pub fn input_buckets(&self) -> BTreeSet<String> {
        let enabled = self.feeds.iter().filter(|feed| feed.enabled);
        enabled
            .filter_map(|feed| matcher::FeedMatch::parse(&feed.r#match).ok())
            .map(|parsed| parsed.bucket().to_owned())
            .collect()
    }

    /// The buckets that feeds in use move their sources to.
    pub fn archive_buckets(&self) -> BTreeSet<String> {
        let enabled = self.feeds.iter().filter(|feed| feed.enabled);
        enabled
            .filter_map(|feed| match &feed.after {
                After::Move(place) => Some(place.bucket.clone()),
                _ => None,
            })
            .collect()
    }
}

/// The S3 server. Credentials come by the SDK's ordinary chain (environment, profile, instance role), unless named here.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct S3 {
    /// `http(s)://host[:port]`; left out: AWS.
    pub endpoint: Option<String>,
    /// Left out: the SDK's ordinary chain.
    pub region: Option<String>,
    /// Bucket in the path instead of the host name, as most servers other than AWS need it.
    pub path_style: bool,
    /// Milliseconds to establish a connection.
    pub connect_timeout_ms: u64,
    /// Milliseconds that a read may wait without a byte arriving; not a limit on a whole transfer.
    pub read_timeout_ms: u64,
    /// Tries of one request inside the SDK, the first included; feedmill's own retries come on top.
    pub max_attempts: u32,
    pub credentials: Credentials,
    /// Buckets that are elsewhere, or belong to somebody else; what is left out is as for all others. A bucket has one
    /// account: outputs in an input bucket are written with the credentials that read it.
    pub buckets: BTreeMap<String, Bucket>,
}

/// Where credentials come from; left out: the SDK's ordinary chain. A role is assumed with what the rest gives.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Credentials {
    pub access_key_id: Option<String>,
    pub secret_access_key: Option<Secret>,
    pub session_token: Option<Secret>,
    /// A profile of the SDK's own configuration files, for its credentials only; it goes before the environment's.
    pub profile: Option<String>,
    /// ARN of a role to assume.
    pub role_arn: Option<String>,
    /// What the role's owner asks for, when he lets others assume it.
    pub external_id: Option<String>,
    /// Requests are not signed: a public bucket.
    pub anonymous: bool,
}

/// A bucket with a server or an account of its own.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Bucket {
    /// `http(s)://host[:port]`, or `aws` for AWS where `s3.endpoint` names another server.
    pub endpoint: Option<String>,
    pub region: Option<String>,
    pub path_style: Option<bool>,
    /// Replaces `s3.credentials` as a whole.
    pub credentials: Option<Credentials>,
}

impl Default for S3 {
    fn default() -> Self {
        Self {
            endpoint: None,
            region: None,
            path_style: false,
            connect_timeout_ms: 3_000,
            read_timeout_ms: 30_000,
            max_attempts: 3,
            credentials: Credentials::default(),
            buckets: BTreeMap::new(),
        }
    }
}

/// The webhook that takes an S3 server's notifications.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Intake {
    /// Address and port; port 0 takes a free one. Beyond loopback only with a token.
    #[serde(deserialize_with = "listen_address")]
    pub listen: SocketAddr,
    /// What a notification must carry as `Authorization: Bearer ...`.
    pub token: Option<Secret>,
    /// Listen beyond loopback without a token: whoever reaches the port can announce objects.
    pub allow_unauthenticated: bool,
    /// Bytes of one notification; a larger one is answered 413.
    pub max_body_bytes: usize,
    /// Kafka topics to which an S3 server writes its notifications.
    pub topics: Vec<String>,
    /// ARNs of SNS topics whose notifications the webhook takes. Their signature stands for the token.
    pub sns_topics: Vec<String>,
    /// SQS queues that notifications arrive in.
    pub queues: Vec<Queue>,
    /// Globs of keys that no feed takes, whoever announces them; one without a slash is about the last part of the key.
    pub exclude: Vec<String>,
}

impl Default for Intake {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 8080)),
            token: None,
            allow_unauthenticated: false,
            max_body_bytes: MIB,
            topics: Vec::new(),
            sns_topics: Vec::new(),
            queues: Vec::new(),
            exclude: ["*.tmp", "*.part"].map(str::to_owned).to_vec(),
        }
    }
}

/// An SQS queue that notifications arrive in, from S3, EventBridge or SNS.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Queue {
    /// `https://sqs.REGION.amazonaws.com/ACCOUNT/NAME`.
    pub url: String,
    /// Left out: the one in the URL's host, else as for S3.
    #[serde(default)]
    pub region: Option<String>,
    /// `http(s)://host[:port]` that requests go to; left out: what the URL names.
    #[serde(default)]
    pub endpoint: Option<String>,
    /// Left out: the SDK's ordinary chain, whatever `s3.credentials` says.
    #[serde(default)]
    pub credentials: Credentials,
}

/// Looking through the buckets for what no notification told of.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Sweep {
    pub enabled: bool,
    /// From the start of one sweep to the start of the next. Shorter: a lost notification is made up for sooner, at one
    /// request per 1,000 objects.
    #[serde(with = "pause")]
    pub interval: Duration,
    /// An object younger than this is left to the notification that is still on its way.
    #[serde(with = "pause")]
    pub min_age: Duration,
    /// Objects that name others to take; the buckets they are about are not listed.
    pub lists: Vec<ListFile>,
}

impl Default for Sweep {
    fn default() -> Self {
        Self {
            enabled: true,
            interval: Duration::from_secs(3 * 3600),
            min_age: Duration::from_secs(60),
            lists: Vec::new(),
        }
    }
}

/// An object that names the objects to take, one key a line.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct ListFile {
    /// `s3://bucket/key` of the list; the keys in it are of the same bucket.
    pub list: String,
    /// What stands before each of its lines to make the key.
    #[serde(default)]
    pub prefix: String,
}

/// How much a worker converts at once, and what a file may not exceed.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Convert {
    /// Files of one worker at a time. More: better use of a slow S3, more memory.
    pub max_in_flight: usize,
    /// What one file may not exceed; each limit has its own dead-letter reason.
    pub limits: Limits,
}

impl Default for Convert {
    fn default() -> Self {
        Self {
            max_in_flight: 16,
            limits: Limits::default(),
        }
    }
}

/// How much memory a worker takes.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Memory {
    /// What the process stays under. Half of it is for the files in flight, by what each is expected to hold: a file begins when
    /// there is room for it, one that needs more than there is runs alone. The other half is for all else: Kafka's queues,
    /// the local state, what the allocator keeps.
    #[serde(with = "bytes")]
    pub limit: u64,
}

impl Memory {
    /// Bytes that the files in flight may be expected to hold.
    pub fn in_flight(&self) -> u64 {
        self.limit / 2
    }
}

impl Default for Memory {
    fn default() -> Self {
        Self {
            limit: 512 * MIB as u64,
        }
    }
}

/// What a dead letter says, and how often its file may be tried again.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct DeadLetters {
    /// Letters and results carry what stands at the place of the fault, up to 120 characters. Off where the files' contents must
    /// not get into Kafka.
    pub excerpts: bool,
    /// Replays after which a letter is parked: `dead-letters replay` passes over it unless told otherwise.
    pub max_replays: u32,
}

impl Default for DeadLetters {
    fn default() -> Self {
        Self {
            excerpts: true,
            max_replays: 5,
        }
    }
}

/// Where the JSON goes.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Output {
    /// Required. May be a source bucket, under a prefix that no feed matches.
    pub bucket: String,
    /// Template of an output's key from its source: `{bucket}`, `{key}` and `{feed}` are filled in.
    pub key: String,
    pub layout: Layout,
    /// Write with `If-Match` and `If-None-Match`. Off only for a server without them: then nothing fences a stalled
    /// worker's late write.
    pub conditional_writes: bool,
    /// Bytes of one part of a multipart upload, at least S3's minimum of 5 MiB. Larger: fewer requests, more memory per
    /// file in flight, and larger outputs, which may have 10,000 parts.
    pub part_bytes: u64,
    /// `Content-Type` of the outputs. Neither this nor the options that follow are part of a feed's mapping hash; left out: `application/json`, and `application/x-ndjson` for lines.
    pub content_type: Option<String>,
    /// `Cache-Control` of the outputs.
    pub cache_control: Option<String>,
    /// S3's storage class of the outputs, such as `STANDARD_IA`; left out: the bucket's.
    pub storage_class: Option<String>,
    /// Encryption at rest; left out: the bucket's.
    pub encryption: Option<Encryption>,
    /// Key for `aws:kms`: an ARN, an id or an alias; left out: the account's own.
    pub kms_key_id: Option<String>,
}

/// S3's `x-amz-server-side-encryption`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub enum Encryption {
    /// With keys that S3 keeps (SSE-S3).
    #[serde(rename = "AES256")]
    Aes256,
    /// With a key of AWS KMS (SSE-KMS).
    #[serde(rename = "aws:kms")]
    Kms,
}

impl Output {
    /// Bytes of its output that one large file holds: a part being filled, one that waits and one on its way.
    pub fn memory_of_a_file(&self) -> u64 {
        self.part_bytes.saturating_mul(3)
    }
}

impl Default for Output {
    fn default() -> Self {
        Self {
            bucket: String::new(),
            key: "{key}.json".to_owned(),
            layout: Layout::Mirror,
            conditional_writes: true,
            part_bytes: 8 * MIB as u64,
            content_type: None,
            cache_control: None,
            storage_class: None,
            encryption: None,
            kms_key_id: None,
        }
    }
}

/// How outputs lie in the bucket.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Layout {
    /// One output per source, replaced when the source changes.
    Mirror,
    /// One output per version of the source, `<key>/<etag>-<event id>.json`, never replaced; only the state says which is current.
    Versioned,
}

/// What a worker keeps on disk.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct State {
    /// Made when missing; deleting it is always safe, a start then takes longer.
    pub dir: PathBuf,
    /// How long ago an object must have been settled for its state to be forgotten, once a sweep lists the object no more;
    /// at least a day. Its output stays. Left out: states are kept for ever.
    #[serde(with = "pause::optional")]
    pub retention: Option<Duration>,
}

impl Default for State {
    fn default() -> Self {
        Self {
            dir: PathBuf::from("feedmill-state"),
            retention: None,
        }
    }
}

/// Health and metrics.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Admin {
    /// Address and port of `/healthz`, `/readyz` and `/metrics`; port 0 takes a free one.
    #[serde(deserialize_with = "listen_address")]
    pub listen: SocketAddr,
}

impl Default for Admin {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 9100)),
        }
    }
}

/// What is logged, and how.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Log {
    pub format: LogFormat,
    /// A level, or a filter by module such as `info,feedmill::kafka=debug`.
    pub level: String,
}

impl Default for Log {
    fn default() -> Self {
        Self {
            format: LogFormat::Auto,
            level: "info".to_owned(),
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum LogFormat {
    /// Text on a terminal, JSON otherwise.
    Auto,
    Text,
    Json,
}

/// What happens between SIGTERM and the end.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Shutdown {
    /// Seconds for work in flight to finish and be committed; what is left then is done again by another worker.
    /// Keep it under the supervisor's patience (Kubernetes: 30 seconds).
    pub drain_timeout_secs: u64,
}

impl Default for Shutdown {
    fn default() -> Self {
        Self {
            drain_timeout_secs: 25,
        }
    }
}

/// An address to listen on; host names are refused because they may stand for several.
fn listen_address<'de, D: serde::Deserializer<'de>>(
    deserializer: D,
) -> Result<SocketAddr, D::Error> {
    let text = String::deserialize(deserializer)?;
    text.parse().map_err(|_| {
        serde::de::Error::custom(format_args!(
            "expected an IP address and a port such as 127.0.0.1:8080, found {text:?}"
        ))
    })
}
