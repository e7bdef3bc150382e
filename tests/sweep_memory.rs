//! A listing of a million keys takes the memory of one page, whether all of them are settled or none is.
//!
//! The allocator of this binary counts, so it holds this one test.

#[path = "support/counting.rs"]
mod counting;

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use bytes::Bytes;
use counting::{LIVE, PEAK};
use feedmill::cleanup::state::Cleaned;
use feedmill::config::Config;
use feedmill::convert::state::Settled;
use feedmill::kafka::Position;
use feedmill::object::{ETag, ObjectRef};
use feedmill::s3::S3Error;
use feedmill::sweep::{
    Announcement, Cursor, Ledger, LedgerError, Listed, OldPage, OldStates, Page, Storage, Sweeper,
};
use feedmill::telemetry::metrics::Metrics;
use feedmill::topics::{Millis, ObjectEvent};
use tokio_util::sync::CancellationToken;

const KEYS: usize = 1_000_000;
const PAGE: usize = 1_000;

/// A page of a thousand keys as candidates, announcements and events, with room.
const MOST_BYTES: usize = 4 * 1024 * 1024;

/// What a sweep has listed, when it is to forget what is gone.
const LISTED_BYTES: usize = 32 * 1024 * 1024;

/// A bucket of a million objects, made up page by page.
struct Million;

fn number(key: &str) -> usize {
    let digits = key.rsplit('/').next().unwrap();
    digits.trim_end_matches(".xml").parse().unwrap()
}

fn etag(number: usize) -> ETag {
    ETag::parse(&format!("{number:032x}")).unwrap()
}

impl Storage for Million {
    async fn page(&self, _: &str, prefix: &str, from: Option<&Cursor>) -> Result<Page, S3Error> {
        let first = match from {
            Some(Cursor::Token(next)) => next.parse().unwrap(),
            _ => 0,
        };
        let objects = (first..first + PAGE).map(|number| Listed {
            key: format!("{prefix}a-folder-of-a-usual-length/{number:09}.xml"),
            etag: etag(number),
            size: Some(1_000),
            modified: Some(Millis(0)),
        });
        let next = first + PAGE;
        Ok(Page {
            objects: objects.collect(),
            unreadable: Vec::new(),
            next: (next < KEYS).then(|| Cursor::Token(next.to_string())),
        })
    }

    async fn head(&self, _: &ObjectRef) -> Result<Option<Listed>, S3Error> {
        Ok(None)
    }

    async fn read(&self, _: &ObjectRef, _: &ETag, _: Range<u64>) -> Result<Bytes, S3Error> {
        Ok(Bytes::new())
    }
}

/// Knows of every object the same thing, and counts what is announced.
#[derive(Default)]
struct Counted {
    settled: bool,
    appended: AtomicI64,
}

impl Ledger for Counted {
    fn refresh(&self) -> Result<(), LedgerError> {
        Ok(())
    }

    fn settled(&self, object: &ObjectRef) -> Result<Option<Settled>, LedgerError> {
        Ok(self.settled.then(|| Settled {
            etag: Some(etag(number(object.key()))),
            ..Settled::default()
        }))
    }

    fn partitions(&self) -> i32 {
        1
    }

    fn old_states(
        &self,
        _: OldStates,
        _: &dyn Fn(&ObjectRef) -> bool,
    ) -> Result<OldPage, LedgerError> {
        Ok(OldPage::default())
    }

    fn cleaned(&self, _: &ObjectRef) -> Result<Option<Cleaned>, LedgerError> {
        Ok(None)
    }

    fn covers(&self, _: &Announcement) -> Result<bool, LedgerError> {
        Ok(false)
    }

    async fn append(&self, _: &ObjectEvent) -> Result<Position, LedgerError> {
        Ok(Position {
            partition: 0,
            offset: self.appended.fetch_add(1, Relaxed),
        })
    }

    fn record(&self, _: &[(Announcement, Position)]) -> Result<(), LedgerError> {
        Ok(())
    }
}

#[tokio::test]
async fn a_million_keys_take_the_memory_of_one_page() {
    let mut config: Config = toml::from_str(
        "output = { bucket = 'out', layout = 'versioned' }\nfeeds = [{ name = 'f', match = 's3://in/x/**' }]",
    )
    .unwrap();
    let cases = [
        (true, 0, None),
        (false, KEYS as i64, None),
        (true, 0, Some(Duration::from_secs(24 * 3600))),
    ];
    for (settled, announced, retention) in cases {
        config.state.retention = retention;
        let most = MOST_BYTES + retention.map_or(0, |_| LISTED_BYTES);
        let ledger = Arc::new(Counted {
            settled,
            ..Counted::default()
        });
        let sweeper = Sweeper {
            storage: Arc::new(Million),
            ledger: Arc::clone(&ledger),
            metrics: Metrics::new().sweep,
            shutdown: CancellationToken::new(),
        };
        let before = LIVE.load(Relaxed);
        PEAK.store(before, Relaxed);
        let began = Instant::now();
        assert!(sweeper.sweep(&config).await.unwrap());
        let peak = PEAK.load(Relaxed) - before;
        println!(
            "{announced} of {KEYS} announced: {peak} bytes at most, {:?}",
            began.elapsed()
        );
        assert_eq!(ledger.appended.load(Relaxed), announced);
        assert_eq!(sweeper.metrics.listed.get(), KEYS as u64);
        assert!(peak < most, "{peak} bytes");
    }
}
