//! The bytes of outputs, compared with what was written.

use futures::{StreamExt, TryStreamExt, stream};

use super::{
    Audit, AuditError, Books, Facts, Shelves, Subject, Summary, Suspect, failed, patiently,
    unreadable,
    verdict::{self, Finding},
};
use crate::{object::ObjectRef, s3::Failure};

/// Outputs read at a time to compare their bytes.
const READS: usize = 8;

/// What reading an object's outputs came to.
enum Compared {
    /// So many outputs are what was written.
    Same(u64),
    Other(Box<Finding>),
    Replaced,
}

impl<S: Shelves, B: Books> Audit<'_, S, B> {
    /// Reads the outputs of converted objects; what has to be looked at again, because it is another one now.
    pub(super) async fn compare_bytes(
        &self,
        converted: Vec<(Subject, Facts)>,
        summary: &mut Summary,
    ) -> Result<Vec<Suspect>, AuditError> {
        let compared = stream::iter(converted).map(|(subject, facts)| async move {
            let compared = self.compare(&subject, &facts).await?;
            Ok::<_, AuditError>((subject, compared))
        });
        let compared = self.asked(compared.buffer_unordered(READS).try_collect::<Vec<_>>());
        let mut suspects = Vec::new();
        for (subject, compared) in compared.await?? {
            match compared {
                Compared::Same(outputs) => {
                    summary.converted += 1;
                    summary.outputs_compared += outputs;
                }
                Compared::Other(finding) => self.name([*finding], summary)?,
                Compared::Replaced => suspects.push(Suspect(subject, None)),
            }
        }
        Ok(suspects)
    }

    async fn compare(&self, subject: &Subject, facts: &Facts) -> Result<Compared, AuditError> {
        let Some(state) = &facts.state else {
            return Ok(Compared::Replaced);
        };
        let outputs = &state.settled.outputs;
        for output in outputs {
            let Ok(place) = ObjectRef::try_new(output.bucket.as_str(), output.key.as_str()) else {
                continue;
            };
            let ask = || {
                let read = |bytes| self.progress.read(bytes);
                self.shelves.sha256(&place, &output.etag, read)
            };
            match patiently(self.options.patience, ask).await {
                Ok(sha256) if sha256 == output.sha256 => {}
                Ok(sha256) => {
                    let Subject {
                        object, sighting, ..
                    } = subject;
                    let finding = verdict::other_bytes(object, sighting, state, output, &sha256);
                    return Ok(Compared::Other(Box::new(finding)));
                }
                Err(error) => match error.failure {
                    Failure::NotFound | Failure::PreconditionFailed => {
                        return Ok(Compared::Replaced);
                    }
                    Failure::Unavailable => return Err(failed(place.to_string(), error)),
                    _ => {
                        let finding = unreadable(&subject.object, &error);
                        return Ok(Compared::Other(Box::new(finding)));
                    }
                },
            }
        }
        Ok(Compared::Same(outputs.len() as u64))
    }
}
