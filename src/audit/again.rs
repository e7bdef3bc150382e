//! What seems wrong, looked at again in the bucket: only what is still the same is named.

use futures::{StreamExt, TryStreamExt, stream};

use super::{
    Audit, AuditError, Books, PAGE, Row, Shelves, Summary, failed, patiently, seen, unreadable,
    verdict::{Finding, Kind, Seen, Sighting, Standing},
};
use crate::{
    object::ObjectRef,
    s3::{Failure, S3Error},
};

/// HEAD requests at a time.
pub(super) const HEADS: usize = 32;

/// What looking at something again came to.
enum Again {
    Gone,
    Same(Finding),
    Changed(Sighting),
}

impl<S: Shelves, B: Books> Audit<'_, S, B> {
    /// Looks at every suspect in the buckets once more: what is still the same is named.
    pub(super) async fn look_again(&self, summary: &mut Summary) -> Result<(), AuditError> {
        self.progress.begin("looking again");
        let suspects = &self.catalogue.suspects;
        self.pages(suspects, async |rows: Vec<Row<_>>| {
            let count = rows.len();
            let looked = stream::iter(rows).map(|(key, (before, finding))| async move {
                let Some(object) = self.scope.taken(&String::from_utf8_lossy(&key)) else {
                    return Ok((key, Again::Gone));
                };
                let again = self.again(&object, &before, finding).await?;
                Ok::<_, AuditError>((key, again))
            });
            let looked = self.asked(looked.buffer_unordered(HEADS).try_collect::<Vec<_>>());
            let (mut changed, mut named) = (Vec::new(), Vec::new());
            for (key, again) in looked.await?? {
                match again {
                    Again::Gone => summary.gone += 1,
                    Again::Same(finding) => named.push(finding),
                    Again::Changed(sighting) => changed.push((key, sighting)),
                }
            }
            self.name(named, summary)?;
            self.progress.advance(count);
            Ok(self.catalogue.doubtful.put(changed)?)
        })
        .await?;
        Ok(suspects.clear()?)
    }

    async fn again(
        &self,
        object: &ObjectRef,
        before: &Sighting,
        finding: Option<Finding>,
    ) -> Result<Again, AuditError> {
        let source = match self.head(object).await? {
            Ok(Some(seen)) => seen,
            Ok(None) => return Ok(Again::Gone),
            Err(error) => return Ok(Again::Same(unreadable(object, &error))),
        };
        // What is said of the source alone needs no look at outputs.
        if let Some(finding) = finding
            .as_ref()
            .filter(|finding| !finding.is_about_outputs())
            && source.is(&before.source)
        {
            return Ok(Again::Same(finding.clone()));
        }
        let state = self.books.state(object)?;
        let mut outputs = Vec::new();
        for output in state.map(|state| state.settled.outputs).unwrap_or_default() {
            let Ok(place) = ObjectRef::try_new(output.bucket.as_str(), output.key.as_str()) else {
                continue;
            };
            match self.head(&place).await? {
                Ok(seen) => outputs.push(Standing {
                    bucket: output.bucket,
                    key: output.key,
                    seen,
                }),
                Err(error) => return Ok(Again::Same(unreadable(object, &error))),
            }
        }
        let now = Sighting { source, outputs };
        Ok(match finding {
            Some(finding) if now.is(before) => Again::Same(finding),
            _ => Again::Changed(now),
        })
    }

    /// The object as it is now; `Err` inside for an answer that will not be another one.
    async fn head(&self, object: &ObjectRef) -> Result<Result<Option<Seen>, S3Error>, AuditError> {
        match patiently(self.options.patience, || self.shelves.head(object)).await {
            Ok(listed) => Ok(Ok(listed.map(seen))),
            Err(error) if error.failure == Failure::Unavailable => {
                Err(failed(object.to_string(), error))
            }
            Err(error) => Ok(Err(error)),
        }
    }

    /// Whatever changed every time it was looked at is being worked on.
    pub(super) fn give_up_on_the_restless(&self, summary: &mut Summary) -> Result<(), AuditError> {
        let mut behind: Option<Vec<u8>> = None;
        loop {
            let rows = self.catalogue.doubtful.page(behind.as_deref(), PAGE)?;
            let Some((last, _)) = rows.last() else {
                return Ok(());
            };
            behind = Some(last.clone());
            for (key, sighting) in rows {
                let Some(object) = self.scope.taken(&String::from_utf8_lossy(&key)) else {
                    continue;
                };
                let what = "it had changed each time it was looked at";
                let mut finding = Finding::new(Kind::Pending, &object, what);
                finding.since = sighting.source.modified;
                self.name([finding], summary)?;
            }
        }
    }
}
