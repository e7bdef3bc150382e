//! `feedmill --version [--json]`: which build this is, and which forms it reads and writes. What two builds say tells what
//! an upgrade changes: see `docs/upgrading.md`.

use rdkafka::ClientConfig;
use serde::Serialize;

use super::say;
use crate::{
    failure::Failure,
    feed::ENGINE_VERSION,
    kafka::{progress, store},
    topics::{self, SchemaVersion},
};

const VERSION: &str = env!("CARGO_PKG_VERSION");

/// The git revision, when whoever built this said it: `FEEDMILL_BUILD_REVISION` in the environment of the compiler.
const REVISION: &str = match option_env!("FEEDMILL_BUILD_REVISION") {
    Some(revision) if !revision.is_empty() => revision,
    _ => "unknown",
};

#[derive(Serialize)]
struct Build {
    version: &'static str,
    revision: &'static str,
    /// Faults that tests plant are only in a `debug` build.
    profile: &'static str,
    rustc: &'static str,
    target: &'static str,
    librdkafka: String,
    /// What librdkafka was built with; feedmill has no features of its own to choose from.
    features: Vec<String>,
    /// Part of every mapping hash.
    engine_version: u32,
    /// Of the values on the topics, as they are written.
    schemas: Vec<SchemaVersion>,
    state_store_format: u32,
    /// What the metadata of committed offsets begins with.
    offset_metadata_tag: &'static str,
}

impl Build {
    fn this() -> Self {
        Self {
            version: VERSION,
            revision: REVISION,
            profile: match cfg!(debug_assertions) {
                true => "debug",
                false => "release",
            },
            rustc: env!("BUILD_RUSTC_VERSION"),
            target: env!("BUILD_TARGET"),
            librdkafka: rdkafka::util::get_rdkafka_version().1,
            features: librdkafka_features(),
            engine_version: ENGINE_VERSION,
            schemas: topics::schemas(),
            state_store_format: store::FORMAT,
            offset_metadata_tag: progress::TAG,
        }
    }
}

fn librdkafka_features() -> Vec<String> {
    let config = ClientConfig::new().create_native_config();
    let features = config.and_then(|config| config.get("builtin.features"));
    let features = features.unwrap_or_default();
    features.split(',').map(str::to_owned).collect()
}

/// One line, or one JSON object.
pub fn print(json: bool) -> Result<(), Failure> {
    if !json {
        return say(format_args!("feedmill {VERSION} ({REVISION})"));
    }
    let text = serde_json::to_string_pretty(&Build::this());
    say(text.map_err(|error| Failure::bug("write JSON", error))?)
}
