//! The object that an event is about, by the event's id.

use crate::{
    cli::reader::{ReadError, Reader, Record, Step, Until, Window},
    object::ObjectRef,
    topics::{Id, Millis, ObjectEvent, ResultRecord, Topics},
};

/// Looks where the time in the id says that the event was appended, then at all results since, and only then everywhere.
pub fn object_of(reader: &Reader, topics: &Topics, id: Id) -> Result<Option<ObjectRef>, ReadError> {
    if let Some(minted_at) = minted_at(id) {
        let at = Window {
            since: Some(minted_at),
            until: Until::Time(minted_at),
        };
        let after = Window {
            since: Some(minted_at),
            until: Until::Now,
        };
        if let Some(object) = search(reader, &topics.events, at, id, event_of)? {
            return Ok(Some(object));
        }
        if let Some(object) = search(reader, &topics.results, after, id, result_of)? {
            return Ok(Some(object));
        }
        tracing::warn!(%id, "no such event near the time in its id; reading events and results from their beginning");
    }
    if let Some(object) = search(reader, &topics.events, Window::ALL, id, event_of)? {
        return Ok(Some(object));
    }
    search(reader, &topics.results, Window::ALL, id, result_of)
}

/// When a UUID of version 7 was made.
fn minted_at(id: Id) -> Option<Millis> {
    let (seconds, nanos) = id.0.get_timestamp()?.to_unix();
    let millis = i64::try_from(seconds).ok()?.checked_mul(1000)?;
    Some(Millis(millis + i64::from(nanos / 1_000_000)))
}

/// Reads the bucket and key of a record, when it is the one of this id.
type Named = fn(&Record<'_>, Id) -> Option<(String, String)>;

fn search(
    reader: &Reader,
    topic: &str,
    window: Window,
    id: Id,
    named: Named,
) -> Result<Option<ObjectRef>, ReadError> {
    let text = id.to_string();
    let mut scan = reader.scan(topic, 0..reader.partition_count(topic)?, window)?;
    loop {
        match scan.step()? {
            Step::Record(record) if mentions(&record, text.as_bytes()) => {
                let object = named(&record, id);
                let object = object.and_then(|(bucket, key)| ObjectRef::try_new(bucket, key).ok());
                if object.is_some() {
                    return Ok(object);
                }
            }
            Step::Record(_) | Step::Quiet => {}
            Step::Damaged(damaged) => tracing::warn!("{damaged}"),
            Step::End => return Ok(None),
        }
    }
}

/// Avro writes a text as it is: most records need no decoding to be passed over.
fn mentions(record: &Record<'_>, text: &[u8]) -> bool {
    let value = record.value.as_deref().unwrap_or_default();
    value.windows(text.len()).any(|window| window == text)
}

fn event_of(record: &Record<'_>, id: Id) -> Option<(String, String)> {
    let event: ObjectEvent = readable(record)?;
    (event.id == id).then_some((event.bucket, event.key))
}

fn result_of(record: &Record<'_>, id: Id) -> Option<(String, String)> {
    let result: ResultRecord = readable(record)?;
    (result.event_id == id).then_some((result.bucket, result.key))
}

fn readable<T: crate::topics::avro::TopicRecord>(record: &Record<'_>) -> Option<T> {
    record.decode().unwrap_or_else(|damaged| {
        tracing::warn!("{damaged}");
        None
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_in_an_id_is_when_it_was_minted() {
        let before = Millis::now();
        let minted = minted_at(Id::mint()).unwrap();
        assert!(before <= minted && minted <= Millis::now());
        assert_eq!(minted_at(Id(uuid::Uuid::new_v4())), None);
    }
}
