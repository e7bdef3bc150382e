//! An audit takes the memory of some pages and of a small store's buffers, however many objects there are, and whether all is
//! well or nothing is.
//!
//! The allocator of this binary counts, so one test runs in it at a time.

#[path = "support/counting.rs"]
mod counting;

use std::ops::Range;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use bytes::Bytes;
use counting::{LIVE, PEAK};
use feedmill::audit::books::{Books, BooksError, Letter, Since, State, TakeOutput, TakePending};
use feedmill::audit::catalogue::Catalogue;
use feedmill::audit::scope::Scope;
use feedmill::audit::summary::Progress;
use feedmill::audit::verdict::Kind;
use feedmill::audit::{Audit, Options, Shelves};
use feedmill::config::Config;
use feedmill::convert::state::Settled;
use feedmill::object::{ETag, ObjectRef};
use feedmill::s3::S3Error;
use feedmill::sweep::{Cursor, Listed, Page, Storage};
use feedmill::topics::{Millis, Output, Status};
use tokio_util::sync::CancellationToken;

const PAGE: usize = 1_000;

/// The store's tables in memory, its cache and its compactions, and a page of objects with what is known of them.
const MOST_BYTES: usize = 48 * 1024 * 1024;

/// A bucket of a million objects and the one of their outputs, made up page by page; and Kafka, which knows of all of them or
/// of none.
struct Million {
    objects: usize,
    settled: bool,
}

fn key(number: usize) -> String {
    format!("x/a-folder-of-a-usual-length/{number:09}.xml")
}

fn number(key: &str) -> usize {
    let name = key.rsplit('/').next().unwrap();
    name.split('.').next().unwrap().parse().unwrap()
}

fn etag(number: usize) -> ETag {
    ETag::parse(&format!("{number:032x}")).unwrap()
}

fn listed(bucket: &str, number: usize) -> Listed {
    let suffix = if bucket == "in" { "" } else { ".json" };
    Listed {
        key: key(number) + suffix,
        etag: etag(number),
        size: Some(1_000),
        modified: Some(Millis(0)),
    }
}

impl Storage for Million {
    async fn page(&self, bucket: &str, _: &str, from: Option<&Cursor>) -> Result<Page, S3Error> {
        let first = match from {
            Some(Cursor::Token(next)) => next.parse().unwrap(),
            _ => 0,
        };
        let next = (first + PAGE).min(self.objects);
        Ok(Page {
            objects: (first..next).map(|it| listed(bucket, it)).collect(),
            unreadable: Vec::new(),
            next: (next < self.objects).then(|| Cursor::Token(next.to_string())),
        })
    }

    async fn head(&self, object: &ObjectRef) -> Result<Option<Listed>, S3Error> {
        Ok(Some(listed(object.bucket(), number(object.key()))))
    }

    async fn read(&self, _: &ObjectRef, _: &ETag, _: Range<u64>) -> Result<Bytes, S3Error> {
        Ok(Bytes::new())
    }
}

impl Shelves for Million {
    async fn is_made_from(&self, _: &ObjectRef, _: &ObjectRef) -> Result<Option<bool>, S3Error> {
        Ok(Some(true))
    }

    async fn sha256(
        &self,
        _: &ObjectRef,
        _: &ETag,
        _: impl Fn(usize) + Send + Sync,
    ) -> Result<String, S3Error> {
        Ok(String::new())
    }
}

impl Books for Million {
    fn look(&self, _: TakePending<'_>) -> Result<(), BooksError> {
        Ok(())
    }

    fn state(&self, object: &ObjectRef) -> Result<Option<State>, BooksError> {
        let etag = etag(number(object.key()));
        let output = Output {
            bucket: "out".into(),
            key: format!("{}.json", object.key()),
            etag: etag.clone(),
            sha256: String::new(),
            size: 1,
            records: 1,
        };
        Ok(self.settled.then(|| State {
            settled: Settled {
                etag: Some(etag),
                status: Some(Status::Converted),
                outputs: vec![output],
                ..Settled::default()
            },
            settled_at: Millis(0),
        }))
    }

    fn letter(&self, _: &ObjectRef) -> Result<Option<Letter>, BooksError> {
        Ok(None)
    }

    fn count_states(&self, _: &dyn Fn(&str) -> bool) -> Result<u64, BooksError> {
        Ok(if self.settled { self.objects as u64 } else { 0 })
    }

    fn told_outputs(&self, _: TakeOutput<'_>) -> Result<Since, BooksError> {
        Ok(Since::Beginning(Millis(0)))
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn fifty_thousand_objects_take_the_memory_of_some_pages() {
    takes_little_memory(50_000).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "four minutes in a debug build; run it alone, by hand"]
async fn a_million_objects_take_no_more() {
    takes_little_memory(1_000_000).await;
}

async fn takes_little_memory(objects: usize) {
    let config: Config = toml::from_str(
        "output = { bucket = 'out' }\nfeeds = [{ name = 'f', match = 's3://in/x/**' }]",
    )
    .unwrap();
    let scope = Scope::new(&config, "in", "x/").unwrap();
    for settled in [true, false] {
        let double = Million { objects, settled };
        let before = LIVE.load(Relaxed);
        PEAK.store(before, Relaxed);
        let began = Instant::now();
        let folder = tempfile::tempdir().unwrap();
        let catalogue = Catalogue::create(folder.path()).unwrap();
        let audit = Audit {
            scope: &scope,
            shelves: &double,
            books: &double,
            catalogue: &catalogue,
            options: Options {
                deep: false,
                min_age: Duration::ZERO,
                patience: Duration::ZERO,
            },
            progress: &Progress::default(),
            cancel: &CancellationToken::new(),
        };
        let summary = audit.run().await.unwrap();
        let peak = PEAK.load(Relaxed) - before;
        println!(
            "settled: {settled}: {peak} bytes at most, {:?}",
            began.elapsed()
        );
        let all = objects as u64;
        let expected = if settled { (all, 0) } else { (0, all) };
        assert_eq!((summary.converted, summary.of(Kind::Missing)), expected);
        assert_eq!((summary.listed, summary.found()), (all, expected.1));
        assert!(peak < MOST_BYTES, "{peak} bytes");
    }
}
