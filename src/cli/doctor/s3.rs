//! The buckets: list, get, conditional put and delete on a scratch key; and the clocks.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use aws_sdk_s3::Client;
use jiff::SignedDuration;
use tokio::time::timeout;
use tokio_util::task::TaskTracker;
use uuid::Uuid;

use super::{
    needs::Needs,
    policy::{Access, statement},
    report::{Report, Verdict},
};
use crate::{
    cleanup::rules,
    config::{
        Config,
        matcher::{FeedMatch, Router},
    },
    failure::Failure,
    object::ObjectRef,
    s3::{
        self, Accounts, S3Error,
        probe::{self, Cause, DeleteProbeError, ProbeError, Scratch, ServerClock},
    },
};

/// Longest time for one check.
const LIMIT: Duration = Duration::from_secs(20);

/// Prefixes of feeds in which an object to read is looked for, and keys of each.
const PREFIXES: usize = 20;
const KEYS: i32 = 1_000;

/// Requests are refused when they are signed 15 minutes off.
const CLOCK_WARNING: SignedDuration = SignedDuration::from_secs(5);
const CLOCK_FAILURE: SignedDuration = SignedDuration::from_mins(5);

pub async fn check(
    config: &Config,
    needs: &Needs,
    cleanups: &TaskTracker,
    report: &mut Report,
) -> Result<(), Failure> {
    if !needs.reads_inputs && !needs.writes_outputs {
        let verdict = Verdict::skipped("these stages use no bucket");
        report.add("s3", "", verdict)?;
        return Ok(());
    }
    let accounts = Accounts::new(&config.s3).await;
    let unproven = rules::unproven(config);
    let mut clocks = BTreeMap::new();
    let inputs = inputs(config);
    if needs.cleans_up {
        // Whether they take what is moved there is seen by the first move: a look must leave nothing behind.
        for archive in config.archive_buckets() {
            if archive != config.output.bucket && !inputs.contains_key(&archive) {
                let archive = Bucket::new(accounts.of(&archive), &archive);
                archive.check_list(report).await?;
            }
        }
    }
    for (bucket, prefixes) in inputs {
        let bucket = Bucket::new(accounts.of(&bucket), &bucket);
        if bucket.check_list(report).await? {
            bucket.check_get(config, &prefixes, report).await?;
        } else {
            report.add("s3.get", &bucket.name, Verdict::skipped(NOT_LISTED))?;
        }
        if needs.cleans_up && unproven.contains(&bucket.name) {
            bucket.check_clean_up(cleanups, report).await?;
        }
        clocks.insert(bucket.name, bucket.clock);
    }
    let output = Bucket::new(accounts.of(&config.output.bucket), &config.output.bucket);
    match config.output.bucket.is_empty() {
        true => {
            report.add("s3.put", "", Verdict::skipped("output.bucket is not set"))?;
        }
        false => output.check_output(config, cleanups, report).await?,
    }
    clocks.insert(output.name, output.clock);
    report.add("clock", "", clock_verdict(&clocks))?;
    Ok(())
}

const NOT_LISTED: &str = "the bucket can't be listed";

/// The feeds' buckets, each with what the keys of its feeds begin with.
fn inputs(config: &Config) -> BTreeMap<String, BTreeSet<String>> {
    let mut inputs: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for feed in &config.feeds {
        if let Ok(parsed) = FeedMatch::parse(&feed.r#match) {
            let bucket = parsed.bucket().to_owned();
            let key =
                feed.r#match.trim_start_matches("s3://")[bucket.len()..].trim_start_matches('/');
            let prefix = key
                .split(['*', '?', '[', '{', '\\'])
                .next()
                .unwrap_or_default();
            inputs.entry(bucket).or_default().insert(prefix.to_owned());
        }
    }
    inputs
}

struct Bucket {
    s3: Client,
    name: String,
    clock: ServerClock,
}

impl Bucket {
    fn new(s3: &Client, name: &str) -> Self {
        Self {
            s3: s3.clone(),
            name: name.to_owned(),
            clock: ServerClock::default(),
        }
    }

    async fn check_list(&self, report: &mut Report) -> Result<bool, Failure> {
        let list = async {
            match probe::list(&self.s3, &self.name, "", 1, &self.clock).await {
                Ok(_) => Verdict::ok("the bucket is there and may be listed"),
                Err(error) => self.refused(&error, Access::List),
            }
        };
        report.check("s3.list", &self.name, LIMIT, list).await
    }

    async fn check_get(
        &self,
        config: &Config,
        prefixes: &BTreeSet<String>,
        report: &mut Report,
    ) -> Result<(), Failure> {
        let get = async {
            match self.find(config, prefixes).await {
                Ok(Some(key)) => match probe::read_a_byte(&self.s3, &self.name, &key).await {
                    Ok(()) => Verdict::ok(format!("read a byte of {key}")),
                    Err(error) => self.refused(&error, Access::Read),
                },
                Ok(None) => self.get_nothing(prefixes).await,
                Err(error) => self.refused(&error, Access::List),
            }
        };
        report.check("s3.get", &self.name, LIMIT, get).await?;
        Ok(())
    }

    /// An object that a feed takes, if there is one among the first keys of the first prefixes.
    async fn find(
        &self,
        config: &Config,
        prefixes: &BTreeSet<String>,
    ) -> Result<Option<String>, S3Error> {
        let Ok(router) = Router::new(config) else {
            return Ok(None);
        };
        for prefix in prefixes.iter().take(PREFIXES) {
            let listed = probe::list(&self.s3, &self.name, prefix, KEYS, &self.clock).await?;
            let found = listed.into_iter().find(|object| {
                let named = ObjectRef::try_new(&self.name, &object.key);
                object.bytes > 0 && named.is_ok_and(|object| router.find(&object).is_some())
            });
            if let Some(object) = found {
                return Ok(Some(object.key));
            }
        }
        Ok(None)
    }

    /// With no object to read, one that is not there: who may not read is refused, who may is told so.
    async fn get_nothing(&self, prefixes: &BTreeSet<String>) -> Verdict {
        let prefix = prefixes.first().map_or("", String::as_str);
        let key = format!("{prefix}feedmill-doctor-{}", Uuid::new_v4());
        match probe::read_a_byte(&self.s3, &self.name, &key).await {
            Err(error) if error.failure == s3::Failure::NotFound => {
                Verdict::ok("may be read; no object that a feed takes was found to try")
            }
            Err(error) => self.refused(&error, Access::Read),
            Ok(()) => Verdict::ok("may be read"),
        }
    }

    /// Whether sources can be deleted without the danger of losing a newer upload.
    async fn check_clean_up(
        &self,
        cleanups: &TaskTracker,
        report: &mut Report,
    ) -> Result<(), Failure> {
        let (s3, name) = (self.s3.clone(), self.name.clone());
        let tried = cleanups.spawn(async move { probe::conditional_deletes(&s3, &name).await });
        let tried = report
            .wait("s3.clean-up", &self.name, LIMIT * 3, tried)
            .await;
        let verdict = match tried {
            Ok(Ok(Ok(()))) => Verdict::ok("a DELETE whose condition does not hold is refused"),
            Ok(Ok(Err(DeleteProbeError::Untried { source, .. }))) => {
                self.refused(&source, Access::CleanUp)
            }
            Ok(Ok(Err(DeleteProbeError::Ignored(_)))) => {
                Verdict::failed("the server ignores If-Match on a DELETE").remedy(
                    "set after = \"keep\" for the feeds of this bucket, or unsafe_delete = true and accept that an upload in the moment of the deletion can be lost",
                )
            }
            Ok(Err(panic)) => return Err(Failure::bug("try a scratch key", panic)),
            Err(late) => late,
        };
        report.add("s3.clean-up", &self.name, verdict)?;
        Ok(())
    }

    async fn check_output(
        &self,
        config: &Config,
        cleanups: &TaskTracker,
        report: &mut Report,
    ) -> Result<(), Failure> {
        let listed = report.wait(
            "s3.list",
            &self.name,
            LIMIT,
            probe::list(&self.s3, &self.name, "", 1, &self.clock),
        );
        let (verdict, usable) = match listed.await {
            Ok(Ok(_)) => (Verdict::ok("the bucket is there and may be listed"), true),
            Ok(Err(error)) => {
                let usable = Cause::of(&error) == Cause::Denied;
                (self.refused(&error, Access::List), usable)
            }
            Err(late) => (late, false),
        };
        report.add("s3.list", &self.name, verdict)?;
        if !usable {
            for check in ["s3.put", "s3.get", "s3.delete"] {
                report.add(check, &self.name, Verdict::skipped(NOT_LISTED))?;
            }
            return Ok(());
        }
        let conditional = config.output.conditional_writes;
        // On its own feet: what was written is deleted, whoever stops waiting.
        let tried = cleanups.spawn(try_scratch(
            Scratch::new(&self.s3, &config.output),
            conditional,
        ));
        let tried = report.wait("s3.put", &self.name, LIMIT * 3, tried).await;
        match tried {
            Ok(Ok(tried)) => self.add_tried(&tried, conditional, report)?,
            Ok(Err(panic)) => return Err(Failure::bug("try a scratch key", panic)),
            Err(late) => {
                report.add("s3.put", &self.name, late)?;
            }
        }
        Ok(())
    }

    fn add_tried(
        &self,
        tried: &Tried,
        conditional: bool,
        report: &mut Report,
    ) -> Result<(), Failure> {
        let put = match &tried.written {
            Ok(()) if conditional => {
                Verdict::ok("writes whose condition does not hold are refused")
            }
            Ok(()) => Verdict::warning(
                "can be written; output.conditional_writes is off: a stalled worker may overwrite a newer output",
            ),
            Err(ProbeError::Write { source, .. } | ProbeError::Bucket { source, .. }) => {
                self.refused(source, Access::Write)
            }
            Err(error @ ProbeError::Unfenced { condition, .. }) => {
                Verdict::failed(format!("the server ignores {condition} on a PUT"))
                    .remedy(advice_of(error))
            }
        };
        report.add("s3.put", &self.name, put)?;
        let get = match &tried.read {
            Some(Ok(())) => Verdict::ok("the scratch object was read back"),
            Some(Err(error)) => self.refused(error, Access::Read),
            None => Verdict::skipped("nothing could be written to read back"),
        };
        report.add("s3.get", &self.name, get)?;
        let delete = match &tried.removed {
            Ok(()) => Verdict::ok("the scratch object is gone"),
            Err(error) => self.refused_delete(error, tried),
        };
        report.add("s3.delete", &self.name, delete)?;
        Ok(())
    }

    /// A worker runs all the same, but every start leaves an object behind.
    fn refused_delete(&self, error: &S3Error, tried: &Tried) -> Verdict {
        if tried.written.is_err() && tried.read.is_none() {
            return Verdict::skipped("nothing could be written to delete");
        }
        let refused = self.refused(error, Access::DeleteScratch);
        let seen = format!(
            "the scratch object {} stays, and every start leaves one: {}",
            tried.key, refused.seen
        );
        refused
            .remedies
            .into_iter()
            .fold(Verdict::warning(seen), Verdict::remedy)
    }

    /// What a refusal means, and what mends it.
    fn refused(&self, error: &S3Error, access: Access) -> Verdict {
        let verdict = Verdict::failed(error.to_string());
        match Cause::of(error) {
            Cause::Denied => verdict.remedy(format!(
                "allow it, in IAM or in the bucket's policy: {}",
                statement(&self.name, access)
            )),
            cause => verdict.remedy(cause.advice()),
        }
    }
}

/// The part of a message behind its cause.
fn advice_of(error: &ProbeError) -> String {
    let text = error.to_string();
    match text.split_once("; ") {
        Some((_, advice)) => advice.to_owned(),
        None => text,
    }
}

/// What became of a scratch object.
struct Tried {
    key: String,
    written: Result<(), ProbeError>,
    /// `None` when it was never written.
    read: Option<Result<(), S3Error>>,
    removed: Result<(), S3Error>,
}

async fn try_scratch(mut scratch: Scratch, conditional: bool) -> Tried {
    let write = async {
        match conditional {
            true => scratch.try_conditions().await,
            false => scratch.write().await,
        }
    };
    let late = |operation| S3Error::unavailable(operation, "no answer in time");
    let written = timeout(LIMIT, write).await.unwrap_or_else(|_| {
        Err(ProbeError::Write {
            bucket: String::new(),
            source: late("PutObject"),
        })
    });
    let read = match &written {
        Err(ProbeError::Write { .. } | ProbeError::Bucket { .. }) => None,
        Ok(()) | Err(ProbeError::Unfenced { .. }) => Some(
            timeout(LIMIT, scratch.read())
                .await
                .unwrap_or_else(|_| Err(late("GetObject"))),
        ),
    };
    // Whatever was said of the writing: it may have happened.
    let removed = timeout(LIMIT, scratch.remove())
        .await
        .unwrap_or_else(|_| Err(late("DeleteObject")));
    Tried {
        key: scratch.key().to_owned(),
        written,
        read,
        removed,
    }
}

/// How far the clocks of this machine and of the buckets' servers are apart, by the worst of them.
fn clock_verdict(clocks: &BTreeMap<String, ServerClock>) -> Verdict {
    let worst = clocks
        .iter()
        .filter_map(|(bucket, clock)| Some((bucket, clock.ahead()?)))
        .max_by_key(|(_, ahead)| ahead.abs());
    let Some((bucket, ahead)) = worst else {
        return Verdict::skipped("no S3 server told its time");
    };
    let off = ahead.abs();
    if off < CLOCK_WARNING {
        return Verdict::ok("this machine's and the S3 server's agree within 5 s");
    }
    let direction = match ahead.is_positive() {
        true => "behind",
        false => "ahead of",
    };
    let seen = format!(
        "this machine's clock is {} s {direction} that of the server of {bucket}",
        off.as_secs()
    );
    let verdict = match off < CLOCK_FAILURE {
        true => Verdict::warning(seen),
        false => Verdict::failed(format!(
            "{seen}; S3 refuses requests that are 15 minutes off"
        )),
    };
    verdict.remedy(Cause::Clock.advice())
}

#[cfg(test)]
mod tests {
    use super::{super::report::Status, *};
    use crate::config;

    #[test]
    fn the_prefixes_of_feeds_are_what_their_keys_begin_with() {
        let feed =
            |text: &str| format!("[[feeds]]\nname = \"{}\"\nmatch = \"{text}\"\n", text.len());
        let toml = feed("s3://a/nsx/**") + &feed("s3://a/go*/x") + &feed("s3://b/**/x.xml");
        let config: config::Config = toml::from_str(&toml).unwrap();
        let inputs = inputs(&config);
        assert_eq!(inputs["a"], ["go".to_owned(), "nsx/".to_owned()].into());
        assert_eq!(inputs["b"], [String::new()].into());
    }

    #[test]
    fn clocks_may_be_five_seconds_apart_and_not_five_minutes() {
        let verdict = |secs: i64| {
            let clock = ServerClock::at(SignedDuration::from_secs(secs));
            let near = ServerClock::at(SignedDuration::ZERO);
            clock_verdict(&BTreeMap::from([
                ("far".into(), clock),
                ("near".into(), near),
            ]))
        };
        assert_eq!(verdict(-4).status, Status::Ok);
        assert_eq!(verdict(30).status, Status::Warning);
        assert!(
            verdict(30).seen.contains("30 s behind"),
            "{:?}",
            verdict(30)
        );
        assert_eq!(verdict(-400).status, Status::Failed);
        assert!(
            verdict(-400).seen.contains("ahead of"),
            "{:?}",
            verdict(-400)
        );
        assert_eq!(clock_verdict(&BTreeMap::new()).status, Status::Skipped);
    }
}
