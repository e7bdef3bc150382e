//! Whole sweeps over a bucket and a ledger in memory, which fail when they are told to.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    ops::Range,
    sync::{
        Mutex, MutexGuard,
        atomic::{AtomicUsize, Ordering},
    },
};

use bytes::Bytes;

use super::*;
use crate::{
    cleanup::state::Cleaned,
    convert::state::Settled,
    kafka::Position,
    object::{ETag, ObjectRef},
    s3::{Failure, S3Error},
    telemetry::metrics::Metrics,
    topics::{
        Cleanup, CleanupAction, CleanupOutcome, Id, Intent, Millis, ObjectEvent, Output, Status,
    },
};

const FEEDS: &str = "
output = { bucket = 'out' }
sweep = { min_age = '1m' }
[[feeds]]
name = 'a'
match = 's3://a/x/**'
[[feeds]]
name = 'b'
match = 's3://b/**'
";

const PAGE: usize = 10;

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap()
}

fn tag(etag: &str) -> ETag {
    ETag::parse(etag).unwrap()
}

fn failure(failure: Failure) -> S3Error {
    S3Error {
        failure,
        ..S3Error::unavailable("test", "as asked")
    }
}

/// Buckets in memory, with pages of ten.
#[derive(Default)]
struct Shelf {
    objects: Mutex<BTreeMap<(String, String), Listed>>,
    /// The next requests about this bucket fail so often, in this way.
    failing: Mutex<HashMap<String, (usize, Failure)>>,
    /// How looks at single objects fail.
    heads_fail: Mutex<Option<Failure>>,
    /// Keys that came after the listing.
    hidden: Mutex<BTreeSet<String>>,
    pages: AtomicUsize,
    heads: AtomicUsize,
}

impl Shelf {
    fn put(&self, bucket: &str, key: &str, etag: &str) {
        self.put_at(bucket, key, etag, Some(Millis(0)));
    }

    fn put_at(&self, bucket: &str, key: &str, etag: &str, modified: Option<Millis>) {
        let listed = Listed {
            key: key.to_owned(),
            etag: tag(etag),
            size: Some(1),
            modified,
        };
        lock(&self.objects).insert((bucket.to_owned(), key.to_owned()), listed);
    }

    fn fail(&self, bucket: &str, times: usize, how: Failure) {
        lock(&self.failing).insert(bucket.to_owned(), (times, how));
    }

    fn answer(&self, bucket: &str) -> Result<(), S3Error> {
        match lock(&self.failing).get_mut(bucket) {
            Some((times @ 1.., how)) => {
                *times -= 1;
                Err(failure(*how))
            }
            _ => Ok(()),
        }
    }
}

impl Storage for Shelf {
    async fn page(
        &self,
        bucket: &str,
        prefix: &str,
        from: Option<&Cursor>,
    ) -> Result<Page, S3Error> {
        self.answer(bucket)?;
        self.pages.fetch_add(1, Ordering::Relaxed);
        let after = match from {
            Some(Cursor::Token(key) | Cursor::Key(key)) => key.as_str(),
            None => "",
        };
        let objects: Vec<Listed> = lock(&self.objects)
            .iter()
            .filter(|((of, key), _)| {
                of == bucket && key.starts_with(prefix) && key.as_str() > after
            })
            .filter(|((_, key), _)| !lock(&self.hidden).contains(key))
            .take(PAGE)
            .map(|(_, listed)| listed.clone())
            .collect();
        let last = objects.last().filter(|_| objects.len() == PAGE);
        Ok(Page {
            next: last.map(|last| Cursor::Token(last.key.clone())),
            objects,
            unreadable: Vec::new(),
        })
    }

    async fn head(&self, object: &ObjectRef) -> Result<Option<Listed>, S3Error> {
        self.answer(object.bucket())?;
        self.heads.fetch_add(1, Ordering::Relaxed);
        if let Some(how) = *lock(&self.heads_fail) {
            return Err(failure(how));
        }
        let name = (object.bucket().to_owned(), object.key().to_owned());
        Ok(lock(&self.objects).get(&name).cloned())
    }

    async fn read(&self, _: &ObjectRef, _: &ETag, _: Range<u64>) -> Result<Bytes, S3Error> {
        Err(failure(Failure::NotFound))
    }
}

/// What is settled and announced, in memory.
#[derive(Default)]
struct Book {
    settled: Mutex<HashMap<String, Settled>>,
    /// What was settled long ago, in the order of the topic.
    old: Mutex<Vec<(ObjectRef, Settled)>>,
    cleaned: Mutex<HashMap<String, Cleaned>>,
    announced: Mutex<HashMap<String, (String, i64)>>,
    events: Mutex<Vec<ObjectEvent>>,
    committed: Mutex<i64>,
    /// So many of the next calls fail.
    failing: AtomicUsize,
    refreshed: AtomicUsize,
}

impl Book {
    fn answer(&self) -> Result<(), LedgerError> {
        let fails = self
            .failing
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| {
                left.checked_sub(1)
            });
        match fails {
            Ok(_) => Err(LedgerError::Panicked("as asked".into())),
            Err(_) => Ok(()),
        }
    }

    fn settle(&self, bucket: &str, key: &str, etag: &str, output: &str) {
        let settled = Settled {
            etag: Some(tag(etag)),
            status: Some(Status::Converted),
            outputs: vec![Output {
                bucket: "out".into(),
                key: format!("{key}.json"),
                etag: tag(output),
                sha256: String::new(),
                size: 1,
                records: 1,
            }],
            ..Settled::default()
        };
        lock(&self.settled).insert(format!("{bucket}/{key}"), settled);
    }

    fn settle_long_ago(&self, bucket: &str, key: &str) {
        self.settle(bucket, key, "A", "o");
        let settled = lock(&self.settled)[&format!("{bucket}/{key}")].clone();
        let object = ObjectRef::try_new(bucket, key).unwrap();
        lock(&self.old).push((object, settled));
    }

    /// The source must not be touched.
    fn skip(&self, bucket: &str, key: &str) {
        let record = Cleanup {
            bucket: bucket.into(),
            key: key.into(),
            etag: tag("A"),
            version_id: None,
            event_id: Id::mint(),
            generation: 0,
            feed: "b".into(),
            action: CleanupAction::Delete,
            outcome: CleanupOutcome::Skipped,
            reason: None,
            message: None,
            target: None,
            cleaned_at: Millis(0),
            worker: "w".into(),
            trace_parent: None,
        };
        lock(&self.cleaned).insert(format!("{bucket}/{key}"), Cleaned::from(&record));
    }

    /// Convert has finished all that was announced.
    fn pass(&self) {
        *lock(&self.committed) = lock(&self.events).len() as i64;
    }

    fn keys(&self) -> Vec<String> {
        lock(&self.events)
            .iter()
            .map(|event| format!("{}/{}", event.bucket, event.key))
            .collect()
    }
}

impl Ledger for Book {
    fn refresh(&self) -> Result<(), LedgerError> {
        self.refreshed.fetch_add(1, Ordering::SeqCst);
        self.answer()
    }

    fn settled(&self, object: &ObjectRef) -> Result<Option<Settled>, LedgerError> {
        self.answer()?;
        Ok(lock(&self.settled).get(&object.message_key()).cloned())
    }

    fn partitions(&self) -> i32 {
        2
    }

    /// All in the second partition, two a page.
    fn old_states(
        &self,
        from: OldStates,
        wanted: &dyn Fn(&ObjectRef) -> bool,
    ) -> Result<OldPage, LedgerError> {
        self.answer()?;
        if from.partition == 0 {
            return Ok(OldPage::default());
        }
        let old = lock(&self.old);
        let next = from.next_offset as usize;
        let states = old.iter().skip(next).take(2);
        Ok(OldPage {
            states: states
                .filter(|(object, _)| wanted(object))
                .cloned()
                .collect(),
            next_offset: (next + 2 < old.len()).then_some(from.next_offset + 2),
        })
    }

    fn cleaned(&self, object: &ObjectRef) -> Result<Option<Cleaned>, LedgerError> {
        self.answer()?;
        Ok(lock(&self.cleaned).get(&object.message_key()).cloned())
    }

    fn covers(&self, announcement: &Announcement) -> Result<bool, LedgerError> {
        let announced = lock(&self.announced);
        let last = announced.get(&announcement.subject());
        Ok(last.is_some_and(|(mark, offset)| {
            *mark == announcement.mark && *lock(&self.committed) <= *offset
        }))
    }

    async fn append(&self, event: &ObjectEvent) -> Result<Position, LedgerError> {
        self.answer()?;
        let mut events = lock(&self.events);
        events.push(event.clone());
        Ok(Position {
            partition: 0,
            offset: events.len() as i64 - 1,
        })
    }

    fn record(&self, announced: &[(Announcement, Position)]) -> Result<(), LedgerError> {
        self.answer()?;
        for (announcement, position) in announced {
            let entry = (announcement.mark.clone(), position.offset);
            lock(&self.announced).insert(announcement.subject(), entry);
        }
        Ok(())
    }
}

fn sweeper() -> Sweeper<Shelf, Book> {
    Sweeper {
        storage: Arc::default(),
        ledger: Arc::default(),
        metrics: Metrics::new().sweep,
        shutdown: CancellationToken::new(),
    }
}

fn config() -> Config {
    toml::from_str(FEEDS).unwrap()
}

async fn sweep(sweeper: &Sweeper<Shelf, Book>) -> bool {
    sweeper.sweep(&config()).await.unwrap()
}

#[tokio::test]
async fn what_differs_is_announced_once_until_convert_has_passed_it() {
    let sweeper = sweeper();
    let (shelf, book) = (&sweeper.storage, &sweeper.ledger);
    for n in 0..25 {
        shelf.put("a", &format!("x/{n:02}"), "A");
    }
    shelf.put("a", "y/other", "A");
    book.settle("a", "x/07", "A", "o");
    book.settle("a", "x/08", "B", "o");
    assert!(sweep(&sweeper).await);
    assert_eq!(book.keys().len(), 24);
    assert!(!book.keys().contains(&"a/x/07".to_owned()));
    assert!(sweep(&sweeper).await);
    assert_eq!(book.keys().len(), 24, "still covered");
    assert_eq!(
        sweeper.metrics.announced.with_label_values(&["new"]).get(),
        24
    );

    // Another version is not covered by the announcement of the one before.
    shelf.put("a", "x/08", "C");
    assert!(sweep(&sweeper).await);
    assert_eq!(book.keys().len(), 25);

    // Passed, and not settled: the letter is open, or the object was gone for a moment.
    book.pass();
    assert!(sweep(&sweeper).await);
    assert_eq!(book.keys().len(), 49);
}

#[tokio::test]
async fn a_quiet_bucket_is_listed_and_kafka_is_asked_once() {
    let sweeper = sweeper();
    let (shelf, book) = (&sweeper.storage, &sweeper.ledger);
    for n in 0..25 {
        let key = format!("x/{n:02}");
        shelf.put("a", &key, "A");
        shelf.put("out", &format!("{key}.json"), "o");
        book.settle("a", &key, "A", "o");
    }
    assert!(sweep(&sweeper).await);
    assert_eq!(book.keys(), [""; 0]);
    assert_eq!(book.refreshed.load(Ordering::SeqCst), 1);
    // Three pages of sources, three of outputs; the feed of b has no prefix, so its outputs are the whole bucket.
    assert_eq!(shelf.pages.load(Ordering::SeqCst), 3 + 1 + 3);
}

#[tokio::test]
async fn converted_sources_are_handed_to_the_clean_up_when_their_results_had_time() {
    let sweeper = sweeper();
    let (shelf, book) = (&sweeper.storage, &sweeper.ledger);
    for key in ["left", "skipped", "fresh", "unsettled"] {
        shelf.put("b", key, "A");
        book.settle("b", key, "A", "o");
    }
    let minutes = |count: i64| Some(Millis(Millis::now().0 - count * 60_000));
    // Ten times as old as min_age, and not quite.
    shelf.put_at("b", "left", "A", minutes(11));
    shelf.put_at("b", "fresh", "A", minutes(9));
    book.skip("b", "skipped");
    book.settle("b", "unsettled", "B", "o");
    shelf.put("a", "x/kept", "A");
    book.settle("a", "x/kept", "A", "o");

    let deleting = FEEDS.replace("s3://b/**'", "s3://b/**'\nafter = 'delete'");
    let deleting: Config = toml::from_str(&deleting).unwrap();
    for _ in 0..2 {
        assert!(sweeper.sweep(&deleting).await.unwrap());
        assert_eq!(book.keys(), ["b/left", "b/unsettled"]);
    }
    let announced = |kind| sweeper.metrics.announced.with_label_values(&[kind]).get();
    assert_eq!((announced("uncleaned"), announced("new")), (1, 1));
}

#[tokio::test]
async fn an_altered_output_is_announced_while_its_source_is_the_settled_one() {
    let sweeper = sweeper();
    let (shelf, book) = (&sweeper.storage, &sweeper.ledger);
    for key in ["x/as-written", "x/altered", "x/replaced", "x/gone"] {
        book.settle("a", key, "A", "o");
        shelf.put("a", key, "A");
        shelf.put("out", &format!("{key}.json"), "stray");
    }
    shelf.put("out", "x/as-written.json", "o");
    shelf.put("out", "x/never-ours.json", "stray");
    shelf.put_at("out", "x/young.json", "stray", Some(Millis::now()));
    book.settle("a", "x/young", "A", "o");
    // Their own parts of the sweep announce them.
    lock(&shelf.objects).remove(&("a".into(), "x/gone".into()));
    shelf.put("a", "x/replaced", "B");
    for _ in 0..2 {
        assert!(sweep(&sweeper).await);
        assert_eq!(book.keys(), ["a/x/replaced", "a/x/altered"]);
    }
    let events = lock(&book.events);
    let event = &events[1];
    assert_eq!(
        (event.intent, &event.etag),
        (Intent::Reconvert, &Some(tag("A")))
    );
}

#[tokio::test]
async fn an_object_that_is_too_young_waits() {
    let sweeper = sweeper();
    sweeper
        .storage
        .put_at("b", "young", "A", Some(Millis::now()));
    sweeper.storage.put_at("b", "timeless", "A", None);
    assert!(sweep(&sweeper).await);
    assert_eq!(sweeper.ledger.keys(), ["b/timeless"]);
}

#[tokio::test]
async fn a_server_that_is_away_is_waited_for_while_the_others_are_swept() {
    let sweeper = sweeper();
    let (shelf, book) = (&sweeper.storage, &sweeper.ledger);
    for n in 0..15 {
        shelf.put("a", &format!("x/{n:02}"), "A");
        shelf.put("b", &format!("{n:02}"), "A");
    }
    shelf.fail("a", 2, Failure::Unavailable);
    assert!(sweep(&sweeper).await);
    let keys = book.keys();
    assert_eq!(keys.len(), 30);
    assert!(
        keys[..15].iter().all(|key| key.starts_with("b/")),
        "{keys:?}"
    );
    let failures = &sweeper.metrics.failures;
    assert_eq!(failures.with_label_values(&["s3_unavailable"]).get(), 2);
}

#[tokio::test]
async fn a_bucket_that_can_t_be_read_makes_the_sweep_incomplete_and_holds_up_no_other() {
    let sweeper = sweeper();
    sweeper.storage.put("b", "k", "A");
    sweeper.storage.fail("a", usize::MAX, Failure::Denied);
    assert!(!sweep(&sweeper).await);
    assert_eq!(sweeper.ledger.keys(), ["b/k"]);
    let metrics = &sweeper.metrics;
    assert_eq!(metrics.failures.with_label_values(&["s3_denied"]).get(), 1);
    assert_eq!((metrics.last_success.get(), metrics.running.get()), (0, 0));
    sweeper.storage.fail("a", 0, Failure::Denied);
    assert!(sweep(&sweeper).await);
    assert!(metrics.last_success.get() > 0);
}

#[tokio::test]
async fn kafka_is_waited_for_and_what_it_acknowledged_is_not_announced_again() {
    for failing in 1..=6 {
        let sweeper = sweeper();
        let (shelf, book) = (&sweeper.storage, &sweeper.ledger);
        for key in ["1", "2", "3"] {
            shelf.put("b", key, "A");
        }
        book.failing.store(failing, Ordering::SeqCst);
        assert!(sweep(&sweeper).await);
        let mut keys = book.keys();
        keys.sort();
        assert_eq!(keys, ["b/1", "b/2", "b/3"], "{failing}");
    }
}

fn forgetting() -> Config {
    Config {
        state: crate::config::State {
            retention: Some(Duration::from_secs(24 * 3600)),
            ..Default::default()
        },
        ..config()
    }
}

/// Old states of one object that is there and of others that are gone: with the names, the sweeps that follow are told.
fn with_old_states() -> Sweeper<Shelf, Book> {
    let sweeper = sweeper();
    for key in ["x/1", "x/2", "x/3", "x/4", "x/5"] {
        sweeper.ledger.settle_long_ago("a", key);
    }
    sweeper.storage.put("a", "x/2", "A");
    sweeper
}

#[tokio::test]
async fn old_states_of_what_is_gone_are_announced_without_an_etag_once_until_convert_has_passed() {
    let sweeper = with_old_states();
    let book = &sweeper.ledger;
    assert!(sweep(&sweeper).await);
    assert_eq!(book.keys(), [""; 0], "nothing is forgotten unless asked");
    for _ in 0..2 {
        assert!(sweeper.sweep(&forgetting()).await.unwrap());
        assert_eq!(book.keys(), ["a/x/1", "a/x/3", "a/x/4", "a/x/5"]);
    }
    let heads = sweeper.storage.heads.load(Ordering::Relaxed);
    assert_eq!(heads, 4, "what is listed costs no request");
    assert!(lock(&book.events).iter().all(|event| event.etag.is_none()));
    let announced = &sweeper.metrics.announced;
    assert_eq!(announced.with_label_values(&["gone"]).get(), 4);

    // Settled anew since, forgotten, and neither.
    book.pass();
    book.settle("a", "x/1", "B", "o");
    lock(&book.settled).remove("a/x/3");
    lock(&book.settled).remove("a/x/4");
    assert!(sweeper.sweep(&forgetting()).await.unwrap());
    assert_eq!(book.keys()[4..], ["a/x/5"]);
}

#[tokio::test]
async fn nothing_is_forgotten_after_a_sweep_that_did_not_see_everything() {
    let sweeper = with_old_states();
    sweeper.storage.fail("b", usize::MAX, Failure::Denied);
    assert!(!sweeper.sweep(&forgetting()).await.unwrap());
    assert_eq!(sweeper.ledger.keys(), [""; 0]);
    sweeper.storage.fail("b", 0, Failure::Denied);
    assert!(sweeper.sweep(&forgetting()).await.unwrap());
    assert_eq!(sweeper.ledger.keys().len(), 4);
}

#[tokio::test]
async fn nothing_is_forgotten_of_which_the_server_does_not_say_that_it_is_gone() {
    for (how, counted) in [
        (Failure::Denied, "s3_denied"),
        (Failure::Unavailable, "s3_unavailable"),
    ] {
        let sweeper = with_old_states();
        *lock(&sweeper.storage.heads_fail) = Some(how);
        assert!(sweeper.sweep(&forgetting()).await.unwrap());
        assert_eq!(sweeper.ledger.keys(), [""; 0], "{how:?}");
        let failures = &sweeper.metrics.failures;
        assert!(failures.with_label_values(&[counted]).get() > 0);
    }
}

#[tokio::test]
async fn nothing_is_forgotten_that_no_listing_covers_or_no_feed_takes() {
    let sweeper = sweeper();
    for (bucket, key) in [("a", "y/1"), ("a", "x/1.tmp"), ("elsewhere", "x/1")] {
        sweeper.ledger.settle_long_ago(bucket, key);
    }
    assert!(sweeper.sweep(&forgetting()).await.unwrap());
    assert_eq!(sweeper.ledger.keys(), [""; 0]);
}

#[tokio::test]
async fn a_state_whose_object_comes_back_while_it_is_looked_for_stays() {
    let sweeper = with_old_states();
    sweeper.storage.put_at("a", "x/4", "A", Some(Millis::now()));
    for key in ["x/3", "x/5"] {
        lock(&sweeper.storage.hidden).insert(key.to_owned());
        sweeper.storage.put("a", key, "A");
    }
    assert!(sweeper.sweep(&forgetting()).await.unwrap());
    assert_eq!(
        sweeper.ledger.keys(),
        ["a/x/1"],
        "too young to be announced is listed, and what no listing shows is there"
    );
}

/// A double whose listing never moves on.
struct Stuck;

impl Storage for Stuck {
    async fn page(&self, _: &str, _: &str, _: Option<&Cursor>) -> Result<Page, S3Error> {
        Ok(Page {
            next: Some(Cursor::Token("same".into())),
            ..Page::default()
        })
    }

    async fn head(&self, _: &ObjectRef) -> Result<Option<Listed>, S3Error> {
        Ok(None)
    }

    async fn read(&self, _: &ObjectRef, _: &ETag, _: Range<u64>) -> Result<Bytes, S3Error> {
        Ok(Bytes::new())
    }
}

#[tokio::test]
async fn a_listing_that_does_not_go_on_ends_and_is_incomplete() {
    let sweeper = Sweeper {
        storage: Arc::new(Stuck),
        ledger: Arc::new(Book::default()),
        metrics: Metrics::new().sweep,
        shutdown: CancellationToken::new(),
    };
    assert!(!sweeper.sweep(&config()).await.unwrap());
}

#[tokio::test]
async fn a_shutdown_ends_a_sweep_that_waits() {
    let sweeper = sweeper();
    sweeper.storage.fail("a", usize::MAX, Failure::Unavailable);
    let shutdown = sweeper.shutdown.clone();
    let config = config();
    let (ended, ()) = tokio::join!(sweeper.sweep(&config), async {
        tokio::time::sleep(Duration::from_millis(50)).await;
        shutdown.cancel();
    });
    assert!(ended.is_err());
}
