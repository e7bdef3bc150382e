//! The audit over doubles of S3 and Kafka that change while it runs.

use std::{
    collections::{BTreeMap, VecDeque},
    ops::Range,
    sync::{Mutex, MutexGuard, PoisonError},
};

use bytes::Bytes;

use super::{
    books::{Letter, Pending, Since, State, TakeOutput, TakePending, Waiting},
    *,
};
use crate::{
    config::Config,
    convert::state::Settled,
    object::ETag,
    s3::Failure,
    sweep::{Page, Storage},
    topics::Status,
};

/// What stands in both buckets, and what Kafka knows of it.
#[derive(Default)]
struct World {
    sources: BTreeMap<String, Seen>,
    outputs: BTreeMap<String, Seen>,
    states: BTreeMap<String, State>,
    pending: Vec<String>,
    /// Outputs that results name, when the first of them was written, and since when they are kept.
    told: Vec<String>,
    results_begin: i64,
    results_cut: Option<Millis>,
    /// Outputs whose bytes were changed under the same ETag.
    rotten: Vec<String>,
    /// What happens after each look at the books, from the first.
    after_look: VecDeque<Change>,
    versions: i64,
}

type Change = fn(&mut World);

#[derive(Default)]
struct Double(Mutex<World>);

impl Double {
    fn world(&self) -> MutexGuard<'_, World> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

const HOUR: i64 = 3_600_000;
const LONG_AGO: i64 = 1_000_000;

fn output_of(key: &str) -> String {
    format!("{key}.json")
}

impl World {
    /// Writes a new version, long ago unless told otherwise later.
    fn put(&mut self, key: &str) -> Seen {
        self.versions += 1;
        let seen = Seen {
            etag: ETag::parse(&format!("v{}", self.versions)).unwrap(),
            size: Some(1),
            modified: Some(Millis(LONG_AGO + 1_000 * self.versions)),
        };
        self.sources.insert(key.into(), seen.clone());
        seen
    }

    /// Converts what is there.
    fn settle(&mut self, key: &str) {
        let output = Seen {
            etag: ETag::parse(&format!("o{}", self.versions)).unwrap(),
            ..self.sources[key].clone()
        };
        self.outputs.insert(output_of(key), output.clone());
        let settled = Settled {
            etag: Some(self.sources[key].etag.clone()),
            status: Some(Status::Converted),
            outputs: vec![Output {
                bucket: "out".into(),
                key: output_of(key),
                sha256: format!("bytes of {}", output.etag),
                etag: output.etag,
                size: 1,
                records: 1,
            }],
            generation: self.versions,
            ..Settled::default()
        };
        let settled_at = Millis(LONG_AGO);
        let state = State {
            settled,
            settled_at,
        };
        self.states.insert(key.into(), state);
    }

    fn convert(&mut self, key: &str) {
        self.put(key);
        self.settle(key);
    }

    fn delete(&mut self, key: &str) {
        self.sources.remove(key);
    }

    fn bucket(&self, bucket: &str) -> &BTreeMap<String, Seen> {
        match bucket {
            "in" => &self.sources,
            _ => &self.outputs,
        }
    }
}

fn listed((key, seen): (&String, &Seen)) -> Listed {
    Listed {
        key: key.clone(),
        etag: seen.etag.clone(),
        size: seen.size,
        modified: seen.modified,
    }
}

impl Storage for Double {
    async fn page(&self, bucket: &str, prefix: &str, _: Option<&Cursor>) -> Result<Page, S3Error> {
        let world = self.world();
        let objects = world.bucket(bucket).iter();
        Ok(Page {
            objects: objects
                .filter(|(key, _)| key.starts_with(prefix))
                .map(listed)
                .collect(),
            ..Page::default()
        })
    }

    async fn head(&self, object: &ObjectRef) -> Result<Option<Listed>, S3Error> {
        let world = self.world();
        let found = world.bucket(object.bucket()).get_key_value(object.key());
        Ok(found.map(listed))
    }

    async fn read(&self, _: &ObjectRef, _: &ETag, _: Range<u64>) -> Result<Bytes, S3Error> {
        Ok(Bytes::new())
    }
}

impl Shelves for Double {
    async fn is_made_from(
        &self,
        output: &ObjectRef,
        source: &ObjectRef,
    ) -> Result<Option<bool>, S3Error> {
        let is_there = self.world().outputs.contains_key(output.key());
        Ok(is_there.then(|| output.key() == output_of(source.key())))
    }

    async fn sha256(
        &self,
        output: &ObjectRef,
        etag: &ETag,
        read: impl Fn(usize) + Send + Sync,
    ) -> Result<String, S3Error> {
        let world = self.world();
        let standing = world.outputs.get(output.key());
        if standing.is_none_or(|standing| standing.etag != *etag) {
            return Err(S3Error {
                failure: Failure::PreconditionFailed,
                ..S3Error::unavailable("GetObject", "another")
            });
        }
        read(10);
        let rotten = world.rotten.iter().any(|key| key == output.key());
        Ok(match rotten {
            true => "other bytes".into(),
            false => format!("bytes of {etag}"),
        })
    }
}

impl Books for Double {
    fn look(&self, pending: TakePending<'_>) -> Result<(), BooksError> {
        let mut world = self.world();
        for key in &world.pending {
            let event = Pending {
                since: Some(Millis(LONG_AGO)),
                waiting: Waiting::ForConvert,
            };
            pending(format!("in/{key}").as_bytes(), event)?;
        }
        if let Some(change) = world.after_look.pop_front() {
            change(&mut world);
        }
        Ok(())
    }

    fn state(&self, object: &ObjectRef) -> Result<Option<State>, BooksError> {
        Ok(self.world().states.get(object.key()).cloned())
    }

    fn letter(&self, _: &ObjectRef) -> Result<Option<Letter>, BooksError> {
        Ok(None)
    }

    fn count_states(&self, of: &dyn Fn(&str) -> bool) -> Result<u64, BooksError> {
        let world = self.world();
        let states = world.states.keys();
        Ok(states.filter(|key| of(&format!("in/{key}"))).count() as u64)
    }

    fn told_outputs(&self, told: TakeOutput<'_>) -> Result<Since, BooksError> {
        let world = self.world();
        for key in &world.told {
            told("out", key)?;
        }
        let beginning = Since::Beginning(Millis(world.results_begin));
        Ok(world.results_cut.map_or(beginning, Since::Cut))
    }
}

/// What is found, as `kind key`.
async fn audit(double: &Double, deep: bool) -> (Summary, Vec<String>) {
    let config: Config = toml::from_str(
        "output = { bucket = 'out' }\nfeeds = [{ name = 'f', match = 's3://in/x/**' }]",
    )
    .unwrap();
    let folder = tempfile::tempdir().unwrap();
    let catalogue = Catalogue::create(folder.path()).unwrap();
    let audit = Audit {
        scope: &Scope::new(&config, "in", "x/").unwrap(),
        shelves: double,
        books: double,
        catalogue: &catalogue,
        options: Options {
            deep,
            min_age: Duration::from_secs(60),
            patience: Duration::ZERO,
        },
        progress: &Progress::default(),
        cancel: &CancellationToken::new(),
    };
    let summary = audit.run().await.unwrap();
    let found = catalogue.findings.page(None, 100).unwrap();
    let found: Vec<String> = found
        .into_iter()
        .map(|(_, finding)| format!("{} {}", finding.kind.name(), finding.key))
        .collect();
    let accounted = summary.converted + summary.discarded + summary.gone + summary.found()
        - summary.of(Kind::OrphanedOutput);
    assert_eq!(
        summary.listed, accounted,
        "every object is something: {summary:?}"
    );
    (summary, found)
}

fn double(make: impl FnOnce(&mut World)) -> Double {
    let double = Double::default();
    make(&mut double.world());
    double
}

#[tokio::test(flavor = "multi_thread")]
async fn each_planted_fault_is_found_and_nothing_else() {
    let double = double(|world| {
        for key in [
            "x/fine",
            "x/absent",
            "x/altered",
            "x/stale",
            "x/taken",
            "x/gone",
            "y/else",
        ] {
            world.convert(key);
        }
        world.put("x/missing");
        world.put("x/stale");
        world.put("x/pending");
        world.put("x/folder/");
        world.pending.push("x/pending".into());
        world.outputs.remove("x/absent.json");
        world.outputs.get_mut("x/altered.json").unwrap().etag = ETag::parse("stray").unwrap();
        world.delete("x/gone");
        let young = world.put("x/young");
        let modified = Some(Millis::now());
        world
            .sources
            .insert("x/young".into(), Seen { modified, ..young });
        world.convert("x/orphan");
        world.delete("x/orphan");
        world.states.remove("x/orphan");
        world.states.remove("y/else");
    });
    let (summary, found) = audit(&double, false).await;
    let expected = [
        "missing x/missing",
        "stale x/stale",
        "output_absent x/absent",
        "output_altered x/altered",
        "orphaned_output x/orphan.json",
        "pending x/pending",
        "pending x/young",
    ];
    assert_eq!(found, expected);
    assert_eq!((summary.converted, summary.states_without_source), (2, 1));
    assert_eq!((summary.listed, summary.not_taken), (8, 1));
    assert!(summary.is_off(false));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_moves_while_it_is_looked_at_is_no_finding() {
    let double = double(|world| {
        for key in [
            "x/again",
            "x/deleted",
            "x/forgotten",
            "x/output",
            "x/appears",
        ] {
            world.convert(key);
        }
        world.states.remove("x/appears");
        world.outputs.remove("x/appears.json");
        // When the listings are made, and the events are told of.
        world.after_look.push_back(|world| {
            world.convert("x/again");
            world.put("x/again");
            world.delete("x/deleted");
            world.put("x/forgotten");
            world.states.remove("x/forgotten");
            world.delete("x/forgotten");
            world.settle("x/output");
            world.settle("x/appears");
        });
        world.after_look.push_back(|world| world.settle("x/again"));
    });
    let (summary, found) = audit(&double, false).await;
    assert_eq!(found, [""; 0]);
    assert_eq!((summary.converted, summary.gone), (4, 1));
    assert!(!summary.is_off(true));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_changes_at_each_look_is_pending_in_the_end() {
    let double = double(|world| {
        world.put("x/restless");
        for _ in 0..=LOOKS {
            world
                .after_look
                .push_back(|world| drop(world.put("x/restless")));
        }
    });
    assert_eq!(audit(&double, false).await.1, ["pending x/restless"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_settled_after_the_first_look_at_the_books_is_no_finding() {
    let double = double(|world| {
        world.put("x/late");
        world.convert("x/mended");
        world.outputs.remove("x/mended.json");
        // Nothing of the sources changes: a repair of somebody else's has come to its end.
        world.after_look.push_back(|_| {});
        world.after_look.push_back(|world| {
            world.settle("x/late");
            world.settle("x/mended");
        });
    });
    let (summary, found) = audit(&double, false).await;
    assert_eq!(found, [""; 0]);
    assert_eq!(summary.converted, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn outputs_that_results_name_or_that_are_older_than_results_are_kept() {
    let orphaned = |world: &mut World, key: &str, modified: i64| {
        world.convert(key);
        world.delete(key);
        world.states.remove(key);
        world.outputs.get_mut(&output_of(key)).unwrap().modified = Some(Millis(modified));
    };
    let double = double(|world| {
        world.results_cut = Some(Millis(LONG_AGO + 10 * HOUR));
        orphaned(world, "x/orphan", LONG_AGO + 11 * HOUR);
        orphaned(world, "x/told", LONG_AGO + 11 * HOUR);
        orphaned(world, "x/old", LONG_AGO + 9 * HOUR);
        orphaned(world, "x/writing", LONG_AGO + 11 * HOUR);
        world.told.push("x/told.json".into());
        world.pending.push("x/writing".into());
    });
    let (summary, found) = audit(&double, false).await;
    assert_eq!(found, ["orphaned_output x/orphan.json"]);
    assert_eq!(summary.outputs_kept, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn outputs_that_were_there_before_this_topic_prefix_are_kept() {
    let stray = |world: &mut World, key: &str, modified: i64| {
        world.convert(key);
        world.delete(key);
        world.states.remove(key);
        world.outputs.get_mut(&output_of(key)).unwrap().modified = Some(Millis(modified));
    };
    let double = double(|world| {
        world.results_begin = LONG_AGO + 10 * HOUR;
        stray(world, "x/before", LONG_AGO + 9 * HOUR);
        stray(world, "x/since", LONG_AGO + 11 * HOUR);
    });
    let (summary, found) = audit(&double, false).await;
    assert_eq!(found, ["orphaned_output x/since.json"]);
    assert_eq!(summary.outputs_kept, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn bytes_that_were_changed_under_their_etag_are_found_by_reading_them_and_only_then() {
    let double = double(|world| {
        world.convert("x/fine");
        world.convert("x/rotten");
        world.rotten.push("x/rotten.json".into());
        world.convert("x/replaced");
    });
    assert_eq!(audit(&double, false).await.1, [""; 0]);
    // It is written again after its listing.
    double
        .world()
        .after_look
        .push_back(|world| world.convert("x/replaced"));
    let (summary, found) = audit(&double, true).await;
    assert_eq!(found, ["output_altered x/rotten"]);
    assert_eq!((summary.outputs_compared, summary.bytes_compared), (2, 30));
}
