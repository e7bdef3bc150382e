//! One event to one ending: look, read, convert, write, and know.
//!
//! Nothing here is in a transaction, and all of it may be done again by another worker. What may pass is tried again
//! here for some seconds, with backoff, while other events go on; then the event waits in a retry topic ([`postpone`]). Only
//! what is the file's own fault becomes a refusal at once.

use std::time::{Duration, Instant};

use aws_sdk_s3::Client;
use tracing::{debug, info, warn};

use super::{
    Convert, Feed,
    answer::{Ending, Refusal, Rejected, rejected_records},
    conversion::{self, Converted, Unconverted},
    decide::{self, Found, Look, Wanted},
    output::{self, Expected, Meaning, Origin, Target, Upload, WriteError},
    postpone::{After, Over},
    report::{self, Unreported, check_key},
    source::{self, Fetched, Source, Version},
    state::Settled,
};
use crate::{
    backoff::jittered,
    config::Layout,
    faults::{self, Fault},
    feed,
    kafka::{Position, Slot},
    object::{ETag, ObjectRef},
    s3::{Failure, S3Error, probe},
    topics::{Millis, ObjectEvent, Outcome, Output},
};

/// How long an absent object may still appear: a notification can be faster than the write it tells of.
const MISSING_GRACE: Duration = Duration::from_secs(5);

/// Pause after a failed attempt, doubling up to the longest.
const FIRST_PAUSE: Duration = Duration::from_millis(200);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// What to do about an output of more parts than S3 allows.
pub(super) const TOO_MANY_PARTS: &str =
    "the output has more than the 10,000 parts that S3 allows; raise output.part_bytes";

/// An event being settled.
pub struct Settling<'a> {
    pub stage: &'a Convert,
    pub event: &'a ObjectEvent,
    pub position: Position,
    pub object: &'a ObjectRef,
    pub state: Option<&'a Settled>,
    pub feed: Option<&'a Feed>,
}

/// Why an attempt has to be made again.
enum Again {
    /// The object is not there.
    Absent,
    /// What stands at the output's key is not what was expected; this is.
    Expecting(Expected),
    /// A request to this bucket failed; may pass.
    Failed { bucket: String, error: S3Error },
}

impl Settling<'_> {
    /// Goes on until the event has ended, or has to wait longer than can be waited here.
    pub async fn settle(&self, slot: &mut Slot) -> After {
        match decide::first_look(self.event, self.state, self.feed.is_some()) {
            Look::Answer(outcome) => After::End(answered(outcome)),
            Look::Read(wanted) => match self.feed {
                Some(feed) => self.attempts(feed, wanted, slot).await,
                None => After::End(Ending::Ignored),
            },
        }
    }

    async fn attempts(&self, feed: &Feed, wanted: Wanted, slot: &mut Slot) -> After {
        let began = Instant::now();
        let mut expected = self.first_expectation(feed);
        let mut pause = FIRST_PAUSE;
        let mut failures = 0u32;
        let mut first_failure = None;
        loop {
            if let Some(error) = self.bucket_is_away() {
                return self.over(Over::Away, &error);
            }
            // Boxed, because thousands of events may pause here at once: only an attempt's own state is large.
            let attempt = Box::pin(self.attempt(feed, wanted, &mut expected));
            let again = match attempt.await {
                Ok(ending) => return After::End(ending),
                Err(again) => again,
            };
            // Since the first failure: a long transfer that breaks off is worth a second one.
            let failing = first_failure.get_or_insert_with(Instant::now).elapsed();
            let is_last = failing + pause > self.stage.in_place;
            match again {
                Again::Absent if began.elapsed() >= MISSING_GRACE => {
                    return After::End(Ending::Missing);
                }
                Again::Absent => {
                    slot.pause(FIRST_PAUSE).await;
                    continue;
                }
                Again::Expecting(standing) => {
                    debug!(
                        bucket = self.event.bucket, key = self.event.key, event_id = %self.event.id,
                        traceparent = self.event.trace_parent, expected = ?standing,
                        "output is not as expected; starting over"
                    );
                    expected = standing;
                    failures += 1;
                    // The first time is the ordinary trace of a crash; a fight over a key is slowed down.
                    if failures == 1 {
                        continue;
                    }
                    if is_last {
                        return self.over(Over::Failed, &fought_over());
                    }
                }
                Again::Failed { bucket, error } => {
                    failures += 1;
                    self.stage.metrics.retried(error.failure.code());
                    warn!(
                        bucket = self.event.bucket, key = self.event.key, event_id = %self.event.id,
                        traceparent = self.event.trace_parent, failures, %error, "attempt failed"
                    );
                    let breakers = &self.stage.breakers;
                    if self.is_of_bucket(&bucket, &error).await
                        && breakers.failed(&bucket, self.event.id, &error, Instant::now())
                    {
                        return self.over(Over::Away, &error);
                    }
                    if is_last {
                        return self.over(Over::Failed, &error);
                    }
                }
            }
            slot.pause(jittered(pause)).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    /// Why this event should not even try: its bucket, or that of its output, is away.
    fn bucket_is_away(&self) -> Option<S3Error> {
        let (breakers, now) = (&self.stage.breakers, Instant::now());
        let (input, output) = (self.object.bucket(), &self.stage.output.bucket);
        breakers.away(input, now).or_else(|| match output == input {
            true => None,
            false => breakers.away(output, now),
        })
    }

    /// Whether a failure says something about the whole bucket, and not about one object or this machine.
    async fn is_of_bucket(&self, bucket: &str, error: &S3Error) -> bool {
        match error.failure {
            Failure::Unavailable | Failure::NoSuchBucket | Failure::OptionRefused => true,
            // All outputs are written alike; one source may be denied among others that are not.
            Failure::Denied if bucket == self.stage.output.bucket => true,
            Failure::Denied => probe::bucket(&self.s3(bucket), bucket).await.is_err(),
            _ => false,
        }
    }

    /// Here it is not waited for any longer.
    fn over(&self, over: Over, error: &S3Error) -> After {
        self.stage.tiers.after(
            self.event,
            self.position,
            self.state,
            over,
            error,
            Millis::now(),
        )
    }

    fn source_failed(&self, error: S3Error) -> Again {
        Again::Failed {
            bucket: self.object.bucket().to_owned(),
            error,
        }
    }

    /// The output's bucket gave an answer that is none.
    fn output_failed(&self, error: S3Error) -> Again {
        Again::Failed {
            bucket: self.stage.output.bucket.clone(),
            error,
        }
    }

    /// One pass: GET the source, convert, PUT the output.
    async fn attempt(
        &self,
        feed: &Feed,
        wanted: Wanted,
        expected: &mut Expected,
    ) -> Result<Ending, Again> {
        let stage = self.stage;
        // An altered output is looked at before its source: if it is all right again, nothing is read.
        if wanted == Wanted::IfAltered && !self.output_is_altered(feed, expected).await? {
            return Ok(Ending::Duplicate);
        }
        let source = match source::fetch(
            &self.s3(self.object.bucket()),
            self.object,
            self.event.etag.as_ref(),
            stage.stall,
        )
        .await
        {
            Ok(Fetched::There(source)) => *source,
            Ok(Fetched::Gone) => {
                stage.breakers.succeeded(self.object.bucket());
                return Err(Again::Absent);
            }
            Err(error) if error.failure == Failure::Refused => return Ok(never_read(error)),
            Err(error) if error.failure == Failure::Archived => {
                return self.archived(wanted, error).await;
            }
            Err(error) => return Err(self.source_failed(error)),
        };
        if let Found::Settled(outcome) =
            decide::found(self.event, self.state, wanted, &source.version.etag)
            && !self.output_is_altered(feed, expected).await?
        {
            stage.breakers.succeeded(self.object.bucket());
            return Ok(found(outcome, source.version));
        }
        self.convert(feed, source, expected).await
    }

    /// Whether an output is there that is not the one the state names: a killed worker wrote it, or a stranger, and what
    /// is in the bucket now is converted in its place. An absent one is left alone: a consumer may have taken it.
    async fn output_is_altered(&self, feed: &Feed, expected: &mut Expected) -> Result<bool, Again> {
        let stage = self.stage;
        if stage.output.layout == Layout::Versioned {
            return Ok(false);
        }
        for output in decide::outputs_to_compare(self.state, &stage.output.bucket) {
            let s3 = self.s3(&output.bucket);
            let standing = output::head(&s3, &output.bucket, &output.key).await;
            let standing = standing.map_err(|error| self.output_failed(error))?;
            stage.breakers.succeeded(&output.bucket);
            let Some(standing) = standing.filter(|standing| standing.etag != output.etag) else {
                continue;
            };
            info!(
                bucket = self.event.bucket, key = self.event.key, event_id = %self.event.id,
                traceparent = self.event.trace_parent, output = output.key,
                "output is not the one that was settled; converting again"
            );
            // Under another template the new output goes elsewhere, and this one is no matter of that write.
            let goes_here = output.key == stage.template.expand(self.object, &feed.name);
            if goes_here && *expected != Expected::Whatever {
                *expected = Expected::Output(standing.etag);
            }
            return Ok(true);
        }
        Ok(false)
    }

    async fn convert(
        &self,
        feed: &Feed,
        source: Source,
        expected: &Expected,
    ) -> Result<Ending, Again> {
        let about = self.about(feed, &source);
        let Source {
            version: source,
            body,
            ..
        } = source;
        let target = self.target(feed, &source);
        if let Err(refusal) = check_key(&target.key) {
            return Ok(refused(source, *refusal));
        }
        let s3 = self.s3(&target.bucket);
        let upload = Upload::new(&s3, &target, &self.stage.output);
        if self.object.key().contains("poison") {
            faults::crash_at(Fault::CrashOnPoison);
        }
        let (began, bytes) = (Instant::now(), body.length());
        let converted = conversion::convert(
            feed.plan.clone(),
            about,
            body,
            upload,
            self.stage.part_bytes(),
        )
        .await;
        self.stage.metrics.converted(began.elapsed(), bytes);
        if !matches!(converted, Err(Unconverted::Unread(_))) {
            self.stage.breakers.succeeded(self.object.bucket());
        }
        match converted {
            Ok(converted) => self.write(converted, &target, source, expected).await,
            Err(Unconverted::Rejected(rejection)) => Ok(refused(source, (*rejection).into())),
            Err(Unconverted::TooManyParts) => Ok(refused(
                source,
                Refusal::new("output_too_large", TOO_MANY_PARTS),
            )),
            Err(Unconverted::Unread(error)) => Err(self.source_failed(error)),
            Err(Unconverted::Unwritten(error)) => Err(self.output_failed(error)),
        }
    }

    async fn write(
        &self,
        converted: Converted<'_>,
        target: &Target,
        source: Version,
        expected: &Expected,
    ) -> Result<Ending, Again> {
        let Converted {
            mut upload,
            last,
            sha256,
            summary,
            rejected,
        } = converted;
        let s3 = self.s3(&target.bucket);
        let report = match report::put(&s3, &self.stage.output, rejected, target).await {
            Ok(report) => report,
            Err(error) => {
                upload.abort().await;
                return match error {
                    Unreported::Refused(refusal) => Ok(refused(source, *refusal)),
                    Unreported::Failed(error) => Err(self.output_failed(error)),
                };
            }
        };
        let own = |etag| Written {
            etag,
            sha256: sha256.clone(),
            size: summary.output_bytes,
        };
        let written = match upload.finish(last, &sha256, expected).await {
            Ok(etag) => own(etag),
            Err(WriteError::TooManyParts) => {
                return Ok(refused(
                    source,
                    Refusal::new("output_too_large", TOO_MANY_PARTS),
                ));
            }
            Err(WriteError::Failed(error)) => return Err(self.output_failed(error)),
            Err(WriteError::Unexpected) => match self
                .refused_write(target, &sha256, summary.output_bytes)
                .await?
            {
                Refused::Ours(etag) => own(etag),
                Refused::EarlierAttempt(standing) => standing,
                Refused::Foreign => return Ok(collision(source, target)),
                Refused::StartOver(standing) => return Err(Again::Expecting(standing)),
            },
        };
        self.stage.breakers.succeeded(&target.bucket);
        faults::crash_at(Fault::CrashAfterOutput);
        if !summary.warnings.is_empty() {
            let warnings: Vec<_> = summary.warnings.iter().map(ToString::to_string).collect();
            warn!(
                bucket = self.event.bucket, key = self.event.key, event_id = %self.event.id,
                traceparent = self.event.trace_parent, warnings = warnings.join("; "),
                "converted; the feed's configuration wants a look"
            );
        }
        let number = |value: u64| i64::try_from(value).unwrap_or(i64::MAX);
        let output = Output {
            bucket: target.bucket.clone(),
            key: target.key.clone(),
            etag: written.etag,
            sha256: written.sha256,
            size: number(written.size),
            records: number(summary.records),
        };
        Ok(Ending::Converted {
            source,
            outputs: vec![output],
            rejected: Rejected {
                count: number(summary.rejected),
                first: rejected_records(summary.rejections),
                output: report,
            },
        })
    }

    /// What a refused write means: the start of starting over is a HEAD of the output.
    async fn refused_write(
        &self,
        target: &Target,
        sha256: &str,
        size: u64,
    ) -> Result<Refused, Again> {
        let s3 = self.s3(&target.bucket);
        let standing = output::head(&s3, &target.bucket, &target.key).await;
        let standing = standing.map_err(|error| self.output_failed(error))?;
        self.stage.breakers.succeeded(&target.bucket);
        let Some(standing) = standing else {
            return Ok(Refused::StartOver(Expected::Nothing));
        };
        let named = self.named_output(&target.bucket, &target.key).is_some();
        Ok(
            match standing.meaning(&target.origin, sha256, size, named) {
                Meaning::Foreign => Refused::Foreign,
                Meaning::Ours(etag) => Refused::Ours(etag),
                // The key has the event's id in it: an earlier attempt made this by another mapping. It is never
                // overwritten, because that attempt's worker may yet be the one whose outcome is committed.
                Meaning::Other(etag) if self.stage.output.layout == Layout::Versioned => {
                    let (bucket, key) = (&target.bucket, &target.key);
                    let stall = self.stage.stall;
                    let hash = output::hash(&s3, bucket, key, &etag, stall, |_| ()).await;
                    Refused::EarlierAttempt(Written {
                        sha256: hash.map_err(|error| self.output_failed(error))?,
                        size: standing.size,
                        etag,
                    })
                }
                Meaning::Other(etag) => Refused::StartOver(Expected::Output(etag)),
            },
        )
    }

    /// The output that the state names at this place.
    fn named_output(&self, bucket: &str, key: &str) -> Option<&Output> {
        let outputs = self
            .state
            .map(|state| state.outputs.as_slice())
            .unwrap_or_default();
        outputs
            .iter()
            .find(|output| output.bucket == bucket && output.key == key)
    }

    /// What mappings may know of the source.
    fn about(&self, feed: &Feed, source: &Source) -> feed::Source {
        feed::Source {
            bucket: self.object.bucket().to_owned(),
            key: self.object.key().to_owned(),
            etag: source.version.etag.as_str().to_owned(),
            last_modified: source.last_modified.clone(),
            feed: feed.name.clone(),
        }
    }

    /// The client for a bucket, as it is configured now: what waits for a wrong account to be corrected gets the new one.
    fn s3(&self, bucket: &str) -> Client {
        self.stage.s3.current().of(bucket).clone()
    }

    /// What the state says must stand at the output's key.
    fn first_expectation(&self, feed: &Feed) -> Expected {
        if !self.stage.output.conditional_writes || faults::planted(Fault::UnconditionalPut) {
            return Expected::Whatever;
        }
        if self.stage.output.layout == Layout::Versioned {
            return Expected::Nothing;
        }
        let key = self.stage.template.expand(self.object, &feed.name);
        let named = self.named_output(&self.stage.output.bucket, &key);
        named.map_or(Expected::Nothing, |output| {
            Expected::Output(output.etag.clone())
        })
    }

    fn target(&self, feed: &Feed, source: &Version) -> Target {
        let key = self.stage.template.expand(self.object, &feed.name);
        Target {
            bucket: self.stage.output.bucket.clone(),
            key: match self.stage.output.layout {
                Layout::Mirror => key,
                Layout::Versioned => format!("{key}/{}-{}.json", source.etag, self.event.id),
            },
            content_type: (self.stage.output.content_type.as_deref())
                .unwrap_or(feed.content_type)
                .to_owned(),
            content_encoding: feed.content_encoding,
            origin: Origin::new(
                self.object,
                &source.etag,
                &feed.mapping_hash,
                self.event.trace_parent.as_deref(),
            ),
        }
    }

    /// Waiting does not bring an archived object back; but what is settled already, before it was archived, stays so.
    async fn archived(&self, wanted: Wanted, error: S3Error) -> Result<Ending, Again> {
        let (bucket, key) = (self.object.bucket(), self.object.key());
        let standing = output::head(&self.s3(bucket), bucket, key).await;
        let standing = standing.map_err(|error| self.source_failed(error))?;
        self.stage.breakers.succeeded(bucket);
        let Some(standing) = standing else {
            return Err(Again::Absent);
        };
        let version = Version {
            etag: standing.etag,
            version_id: None,
        };
        Ok(
            match decide::found(self.event, self.state, wanted, &version.etag) {
                Found::Settled(outcome) => found(outcome, version),
                Found::Convert => refused(
                    version,
                    Refusal::new(Failure::Archived.code(), error.message),
                ),
            },
        )
    }
}

/// An output that is there.
struct Written {
    etag: ETag,
    sha256: String,
    size: u64,
}

/// What stands in the way of a write.
enum Refused {
    Ours(ETag),
    EarlierAttempt(Written),
    Foreign,
    StartOver(Expected),
}

fn answered(outcome: Outcome) -> Ending {
    match outcome {
        Outcome::Discarded => Ending::Discarded,
        Outcome::Ignored => Ending::Ignored,
        _ => Ending::Duplicate,
    }
}

fn found(outcome: Outcome, current: Version) -> Ending {
    match outcome {
        Outcome::Superseded => Ending::Superseded { current },
        _ => Ending::Duplicate,
    }
}

fn refused(source: Version, refusal: Refusal) -> Ending {
    Ending::Refused {
        source: Some(source),
        refusal: Box::new(refusal),
    }
}

/// A key that the server can't have names no version: nothing is settled.
fn never_read(error: S3Error) -> Ending {
    Ending::Refused {
        source: None,
        refusal: Box::new(Refusal::new(error.failure.code(), error.message)),
    }
}

fn collision(source: Version, target: &Target) -> Ending {
    let message = format!(
        "the output s3://{}/{} belongs to another source, or was written by somebody else",
        target.bucket, target.key
    );
    refused(source, Refusal::new("output_collision", message))
}

/// Somebody else goes on writing the same output.
fn fought_over() -> S3Error {
    S3Error {
        operation: "PutObject",
        failure: Failure::PreconditionFailed,
        message: "the output was changed between each look at it and the write".to_owned(),
    }
}
