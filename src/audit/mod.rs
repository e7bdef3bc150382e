//! The audit: does every object below a prefix have its outcome?
//!
//! In: the listings of the sources and of their outputs, and what Kafka knows. Out: each listed object is settled as it
//! should be, or is named as one of [`Kind`]; and each output is named by a state, or by a result, or is named here.
//!
//! What makes it sound beside live traffic is the order. What stands in the buckets is looked at **before** what is pending,
//! and that before what is settled. What seems wrong then is looked at again in the bucket: only if it is still what it was
//! is it named, because then it was like that all the time while the books were read. What has changed is judged anew, by
//! books that are read anew. So an object that is uploaded, converted or deleted meanwhile is no finding.
//!
//! Nothing that grows with the bucket is held in memory: see [`catalogue`].
//!
//! * [`scope`]: which objects, and where their outputs lie
//! * [`books`]: what Kafka is asked for; [`shelves`]: what S3 is
//! * [`catalogue`]: what was seen, on disk
//! * [`verdict`]: what is concluded; pure; [`again`]: what seems wrong, looked at again; [`deep`]: the bytes of outputs
//! * [`strays`]: the outputs that no state names
//! * [`summary`]: the numbers

mod again;
pub mod books;
pub mod catalogue;
mod deep;
pub mod scope;
mod shelves;
mod strays;
pub mod summary;
#[cfg(test)]
mod tests;
pub mod verdict;

use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::{
    object::ObjectRef,
    s3::S3Error,
    sweep::{Cursor, Listed},
    topics::{Millis, Output},
};
use books::{Books, BooksError, State};
use catalogue::{Catalogue, CatalogueError, Row, Table};
use scope::Scope;
use shelves::patiently;
use summary::{Progress, Summary};
use verdict::{Age, Facts, Finding, Fine, Kind, Seen, Sighting, Standing, Verdict, judge};

pub use shelves::Shelves;

/// Rows held in memory at a time.
const PAGE: usize = 1_000;

/// How often what is in doubt is looked at again.
const LOOKS: usize = 5;

/// Why an audit came to no end.
#[derive(Debug, thiserror::Error)]
pub enum AuditError {
    #[error("look at {what}")]
    S3 { what: String, source: S3Error },
    #[error("list {what}: the server answers the same page again and again")]
    Stuck { what: String },
    #[error(transparent)]
    Books(#[from] BooksError),
    #[error(transparent)]
    Catalogue(#[from] CatalogueError),
    #[error("come to the end of the audit: it was interrupted; nothing was changed")]
    Stopped,
}

/// How to audit.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// Read every output and compare its bytes with what was written.
    pub deep: bool,
    /// An object younger than this may still be announced by its notification.
    pub min_age: Duration,
    /// How long a server may fail before the audit gives up.
    pub patience: Duration,
}

/// One audit.
pub struct Audit<'a, S, B> {
    pub scope: &'a Scope,
    pub shelves: &'a S,
    pub books: &'a B,
    pub catalogue: &'a Catalogue,
    pub options: Options,
    pub progress: &'a Progress,
    pub cancel: &'a CancellationToken,
}

/// An object to judge.
struct Subject {
    object: ObjectRef,
    sighting: Sighting,
    state: Option<State>,
}

/// What has to be looked at again before it is named so; without a finding when all that is known is that something changed.
struct Suspect(Subject, Option<Finding>);

impl Suspect {
    fn row(self) -> Row<(Sighting, Option<Finding>)> {
        let Self(subject, finding) = self;
        let key = subject.object.key().as_bytes().to_vec();
        (key, (subject.sighting, finding))
    }

    fn sighting(self) -> Row<Sighting> {
        let (key, (sighting, _)) = self.row();
        (key, sighting)
    }
}

impl<S: Shelves, B: Books> Audit<'_, S, B> {
    /// Audits; what is found is in the catalogue then.
    pub async fn run(&self) -> Result<Summary, AuditError> {
        let mut summary = Summary::default();
        self.list(&mut summary).await?;
        let read_at = self.read_books()?;
        self.join(read_at, &mut summary).await?;
        for _ in 0..LOOKS {
            if self.catalogue.doubtful.is_empty()? {
                break;
            }
            let read_at = self.read_books()?;
            self.judge_again(read_at, &mut summary).await?;
            self.look_again(&mut summary).await?;
        }
        self.give_up_on_the_restless(&mut summary)?;
        self.find_strays(&mut summary).await?;
        summary.bytes_compared = self.progress.bytes();
        Ok(summary)
    }

    /// The sources that feeds take, and the outputs.
    async fn list(&self, summary: &mut Summary) -> Result<(), AuditError> {
        let scope = self.scope;
        self.progress.begin("listing the sources");
        self.list_prefix(&scope.bucket, &scope.prefix, |objects, unreadable| {
            let all = objects.len();
            let taken = objects
                .into_iter()
                .filter(|listed| scope.taken(&listed.key).is_some())
                .map(|listed| (listed.key.clone(), seen(listed)));
            let taken: Vec<_> = taken.collect();
            summary.not_taken += (all - taken.len()) as u64;
            for reason in unreadable {
                summary.listed += 1;
                self.name([self.without_a_name(&reason, summary)], summary)?;
            }
            Ok(self.catalogue.sources.put(taken)?)
        })
        .await?;
        self.progress.begin("listing the outputs");
        for prefix in &scope.output_prefixes {
            self.list_prefix(&scope.output_bucket, prefix, |objects, _| {
                summary.outputs += objects.len() as u64;
                let rows = objects
                    .into_iter()
                    .map(|listed| (listed.key.clone(), seen(listed)));
                Ok(self.catalogue.outputs.put(rows)?)
            })
            .await?;
        }
        Ok(())
    }

    async fn list_prefix(
        &self,
        bucket: &str,
        prefix: &str,
        mut take: impl FnMut(Vec<Listed>, Vec<String>) -> Result<(), AuditError>,
    ) -> Result<(), AuditError> {
        let what = || format!("s3://{bucket}/{prefix}");
        let mut from: Option<Cursor> = None;
        loop {
            let ask = || self.shelves.page(bucket, prefix, from.as_ref());
            let page = self.asked(patiently(self.options.patience, ask)).await?;
            let page = page.map_err(|source| failed(what(), source))?;
            self.progress.advance(page.objects.len());
            take(page.objects, page.unreadable)?;
            match page.next {
                None => return Ok(()),
                next if next == from => return Err(AuditError::Stuck { what: what() }),
                next => from = next,
            }
        }
    }

    /// What is pending, and then what is settled; when that began.
    fn read_books(&self) -> Result<Millis, AuditError> {
        self.progress.begin("reading what is known");
        let began = Millis::now();
        let pending = &self.catalogue.pending;
        pending.clear()?;
        let mut told = |key: &[u8], event| {
            let Ok(key) = str::from_utf8(key) else {
                return Ok(());
            };
            self.progress.advance(1);
            // The first of several tells since when.
            if self.scope.holds(key) && !pending.has(key)? {
                pending.put([(key, event)])?;
            }
            Ok(())
        };
        let read = tokio::task::block_in_place(|| self.books.look(&mut told));
        match read {
            Err(_) if self.cancel.is_cancelled() => Err(AuditError::Stopped),
            read => Ok(read.map(|()| began)?),
        }
    }

    /// Judges every listed source by what its listing, and that of the outputs, said.
    async fn join(&self, read_at: Millis, summary: &mut Summary) -> Result<(), AuditError> {
        self.progress.begin("comparing");
        let states = self.books.count_states(&|key| self.scope.holds(key))?;
        let mut with_state = 0;
        self.pages(&self.catalogue.sources, async |rows: Vec<Row<Seen>>| {
            summary.listed += rows.len() as u64;
            let mut subjects = Vec::with_capacity(rows.len());
            for (key, source) in rows {
                let Some(object) = self.scope.taken(&String::from_utf8_lossy(&key)) else {
                    continue;
                };
                let state = self.books.state(&object)?;
                with_state += u64::from(state.is_some());
                let outputs = match &state {
                    Some(state) => self.listed_outputs(&state.settled.outputs)?,
                    None => Vec::new(),
                };
                let sighting = Sighting { source, outputs };
                subjects.push(Subject {
                    object,
                    sighting,
                    state,
                });
            }
            // By now the books may be old, if much was compared.
            let suspects = self.judge_all(subjects, read_at, summary).await?;
            let doubtful = suspects.into_iter().map(|suspect| suspect.sighting());
            Ok(self.catalogue.doubtful.put(doubtful)?)
        })
        .await?;
        summary.states_without_source = states.saturating_sub(with_state);
        Ok(())
    }

    /// What the listing has at the places of outputs; nothing of places that were not listed.
    fn listed_outputs(&self, outputs: &[Output]) -> Result<Vec<Standing>, AuditError> {
        let scope = self.scope;
        let is_listed = |output: &&Output| {
            let mut prefixes = scope.output_prefixes.iter();
            output.bucket == scope.output_bucket
                && prefixes.any(|prefix| output.key.starts_with(prefix.as_str()))
        };
        let standing = |output: &Output| {
            Ok(Standing {
                bucket: output.bucket.clone(),
                key: output.key.clone(),
                seen: self.catalogue.outputs.get(&output.key)?,
            })
        };
        outputs.iter().filter(is_listed).map(standing).collect()
    }

    /// Judges what is in doubt, by the books as they are now.
    async fn judge_again(&self, read_at: Millis, summary: &mut Summary) -> Result<(), AuditError> {
        self.progress.begin("comparing again");
        let doubtful = &self.catalogue.doubtful;
        self.pages(doubtful, async |rows: Vec<Row<Sighting>>| {
            let mut subjects = Vec::with_capacity(rows.len());
            for (key, sighting) in rows {
                let Some(object) = self.scope.taken(&String::from_utf8_lossy(&key)) else {
                    continue;
                };
                subjects.push(Subject {
                    state: self.books.state(&object)?,
                    object,
                    sighting,
                });
            }
            let suspects = self.judge_all(subjects, read_at, summary).await?;
            let suspects = suspects.into_iter().map(Suspect::row);
            Ok(self.catalogue.suspects.put(suspects)?)
        })
        .await?;
        Ok(doubtful.clear()?)
    }

    /// Names what is known for sure; what is to be looked at again.
    async fn judge_all(
        &self,
        subjects: Vec<Subject>,
        read_at: Millis,
        summary: &mut Summary,
    ) -> Result<Vec<Suspect>, AuditError> {
        let age = Age {
            min: self.options.min_age,
            now: read_at,
        };
        let count = subjects.len();
        let (mut converted, mut named) = (Vec::new(), Vec::new());
        let mut suspects = Vec::new();
        for mut subject in subjects {
            let facts = self.facts(&subject.object, subject.state.take())?;
            match judge(&subject.object, &subject.sighting, &facts, age) {
                Verdict::Fine(Fine::Discarded) => summary.discarded += 1,
                Verdict::Fine(Fine::Converted) => converted.push((subject, facts)),
                Verdict::Named(finding) => named.push(finding),
                Verdict::Suspected(finding) => suspects.push(Suspect(subject, Some(finding))),
                Verdict::Unseen => suspects.push(Suspect(subject, None)),
            }
        }
        self.name(named, summary)?;
        match self.options.deep {
            false => summary.converted += converted.len() as u64,
            true => suspects.extend(self.compare_bytes(converted, summary).await?),
        }
        self.progress.advance(count);
        Ok(suspects)
    }

    fn facts(&self, object: &ObjectRef, state: Option<State>) -> Result<Facts, AuditError> {
        let has_letter = state
            .as_ref()
            .is_some_and(|state| state.settled.dead_letter_id.is_some());
        Ok(Facts {
            pending: self.catalogue.pending.get(&object.message_key())?,
            letter: match has_letter {
                true => self.books.letter(object)?,
                false => None,
            },
            state,
        })
    }

    /// Hands over all rows of a table, a page at a time.
    async fn pages<T: serde::Serialize + serde::de::DeserializeOwned>(
        &self,
        table: &Table<T>,
        mut take: impl AsyncFnMut(Vec<Row<T>>) -> Result<(), AuditError>,
    ) -> Result<(), AuditError> {
        let mut behind: Option<Vec<u8>> = None;
        loop {
            if self.cancel.is_cancelled() {
                return Err(AuditError::Stopped);
            }
            let rows = table.page(behind.as_deref(), PAGE)?;
            let Some((last, _)) = rows.last() else {
                return Ok(());
            };
            behind = Some(last.clone());
            take(rows).await?;
        }
    }

    fn name(
        &self,
        findings: impl IntoIterator<Item = Finding>,
        summary: &mut Summary,
    ) -> Result<(), AuditError> {
        let counted = findings.into_iter().map(|finding| {
            summary.count(finding.kind);
            (finding.place(), finding)
        });
        Ok(self.catalogue.findings.put(counted)?)
    }

    /// An entry of a listing whose key can't be read: it is told by its number.
    fn without_a_name(&self, reason: &str, summary: &Summary) -> Finding {
        let number = summary.of(Kind::Unreadable) + 1;
        Finding {
            kind: Kind::Unreadable,
            bucket: self.scope.bucket.clone(),
            key: format!("{}?{number}", self.scope.prefix),
            etag: None,
            since: None,
            what: reason.to_owned(),
            output: None,
            letter: None,
            repair: None,
        }
    }

    async fn asked<T>(&self, work: impl Future<Output = T>) -> Result<T, AuditError> {
        let answer = self.cancel.run_until_cancelled(work).await;
        answer.ok_or(AuditError::Stopped)
    }
}

fn unreadable(object: &ObjectRef, error: &S3Error) -> Finding {
    Finding::new(Kind::Unreadable, object, error.to_string())
}

fn failed(what: String, source: S3Error) -> AuditError {
    AuditError::S3 { what, source }
}

fn seen(listed: Listed) -> Seen {
    Seen {
        etag: listed.etag,
        size: listed.size,
        modified: listed.modified,
    }
}
