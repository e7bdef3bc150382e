//! The outputs that no state names.
//!
//! Not each of them is an orphan. A source that is gone leaves its output behind, and layout `versioned` keeps the outputs of
//! earlier versions: results name these, as long as results are kept. So an orphan is an output that says it is ours, that
//! neither a state nor a result names, and that is younger than the oldest result: of an older one nobody can tell, or another
//! topic prefix does.

use futures::{StreamExt, TryStreamExt, stream};

use super::{
    Audit, AuditError, Shelves,
    again::HEADS,
    books::{Books, Since},
    catalogue::Row,
    failed,
    shelves::patiently,
    summary::Summary,
    unreadable,
    verdict::{Finding, Kind, Seen},
};
use crate::{
    object::ObjectRef,
    s3::{Failure, S3Error},
};

/// How far the clocks of Kafka and of S3 may be apart, in milliseconds.
const CLOCK_SLACK_MS: i64 = 5 * 60 * 1000;

impl<S: Shelves, B: Books> Audit<'_, S, B> {
    /// The outputs were listed before the books were read: the event that wrote one was pending then, or its outcome is there.
    pub(super) async fn find_strays(&self, summary: &mut Summary) -> Result<(), AuditError> {
        let (outputs, strays) = (&self.catalogue.outputs, &self.catalogue.strays);
        self.progress.begin("looking for outputs that nobody names");
        self.pages(outputs, async |rows: Vec<Row<Seen>>| {
            self.progress.advance(rows.len());
            let mut found = Vec::new();
            for (key, seen) in rows {
                let key = String::from_utf8_lossy(&key).into_owned();
                if let Some(source) = self.source_of_stray(&key)? {
                    found.push((key, (seen, source.key().to_owned())));
                }
            }
            Ok(strays.put(found)?)
        })
        .await?;
        if strays.is_empty()? {
            return Ok(());
        }
        let results_since = self.strike_out_told(summary)?;
        self.pages(strays, async |rows: Vec<Row<(Seen, String)>>| {
            let may_be_judged = |seen: &Seen| match (results_since, seen.modified) {
                (Since::Cut(since), Some(modified)) => modified.0 - CLOCK_SLACK_MS > since.0,
                (Since::Beginning(first), Some(modified)) => modified.0 + CLOCK_SLACK_MS > first.0,
                (_, None) => false,
            };
            let all = rows.len();
            let judged: Vec<_> = rows
                .into_iter()
                .filter(|(_, (seen, _))| may_be_judged(seen))
                .collect();
            summary.outputs_kept += (all - judged.len()) as u64;
            let looked = stream::iter(judged).map(|row| self.orphan(row));
            let looked = looked.buffer_unordered(HEADS).try_collect::<Vec<_>>();
            let orphans = self.asked(looked).await??;
            self.name(orphans.into_iter().flatten(), summary)
        })
        .await
    }

    /// The source whose output this would be, when its state does not name it and nothing is under way.
    fn source_of_stray(&self, key: &str) -> Result<Option<ObjectRef>, AuditError> {
        let scope = self.scope;
        let Some(source) = scope.source_of(key) else {
            return Ok(None);
        };
        let state = self.books.state(&source)?;
        let mut named = state.iter().flat_map(|state| &state.settled.outputs);
        if named.any(|output| output.bucket == scope.output_bucket && output.key == key)
            || self.catalogue.pending.has(&source.message_key())?
        {
            return Ok(None);
        }
        // A source that has to be converted gets its output here: the source is what is named.
        let is_taken_over = scope.is_written_over()
            && state.is_none()
            && self.catalogue.sources.has(source.key())?;
        Ok((!is_taken_over).then_some(source))
    }

    /// Forgets those that results name; since when all results are there.
    fn strike_out_told(&self, summary: &mut Summary) -> Result<Since, AuditError> {
        let strays = &self.catalogue.strays;
        self.progress.begin("reading the results");
        let mut told = |bucket: &str, key: &str| {
            self.progress.advance(1);
            if bucket == self.scope.output_bucket && strays.has(key)? {
                strays.remove(key)?;
                summary.outputs_kept += 1;
            }
            Ok(())
        };
        let read = tokio::task::block_in_place(|| self.books.told_outputs(&mut told));
        match read {
            Err(_) if self.cancel.is_cancelled() => Err(AuditError::Stopped),
            read => Ok(read?),
        }
    }

    /// Whether it is there and says of itself that feedmill made it from that source.
    async fn orphan(&self, row: Row<(Seen, String)>) -> Result<Option<Finding>, AuditError> {
        let (key, (seen, source)) = row;
        let key = String::from_utf8_lossy(&key).into_owned();
        let output = ObjectRef::try_new(self.scope.output_bucket.as_str(), key);
        let source = ObjectRef::try_new(self.scope.bucket.as_str(), source);
        let (Ok(output), Ok(source)) = (output, source) else {
            return Ok(None);
        };
        let ask = || self.shelves.is_made_from(&output, &source);
        match patiently(self.options.patience, ask).await {
            Ok(Some(true)) => {}
            Ok(_) => return Ok(None),
            Err(error) => return cannot_be_asked(&output, error),
        }
        let what = format!("no state and no result names it; it was made from {source}");
        Ok(Some(Finding {
            etag: Some(seen.etag),
            since: seen.modified,
            output: Some(output.to_string()),
            ..Finding::new(Kind::OrphanedOutput, &output, what)
        }))
    }
}

fn cannot_be_asked(output: &ObjectRef, error: S3Error) -> Result<Option<Finding>, AuditError> {
    match error.failure {
        Failure::Unavailable => Err(failed(output.to_string(), error)),
        _ => Ok(Some(unreadable(output, &error))),
    }
}
