//! What the clean-up does to a source on a real S3 server, without Kafka: races, large objects, versions, and servers that
//! can't be trusted.

mod support;

#[path = "support/convert_world/mod.rs"]
mod convert_world;

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use aws_sdk_s3::Client;
use convert_world::{Fault, Gate, PATIENCE, convert, start, stop, through};
use feedmill::cleanup::act::{CopySizes, End, Task, is_lasting};
use feedmill::cleanup::rules::{Rule, action};
use feedmill::config::{After, Config};
use feedmill::convert::state::Settled;
use feedmill::object::{ETag, ObjectRef};
use feedmill::s3::{Accounts, probe};
use feedmill::topics::{Output, Status};
use futures::{StreamExt, stream};
use support::files::{PRODUCTS_FEED, ProductFile};
use support::{Signal, Stack, Store, WorkerOptions, wait_until};

/// A bucket, and an output that stands in it.
struct Shelf {
    accounts: Accounts,
    store: Store,
    bucket: String,
    output: Output,
}

impl Shelf {
    async fn new(stack: &Stack) -> Self {
        Self::at(stack, &stack.s3_endpoint).await
    }

    /// One whose requests about clean-up go elsewhere.
    async fn at(stack: &Stack, endpoint: &str) -> Self {
        let settings = format!(
            "s3 = {{ endpoint = '{endpoint}', path_style = true, region = 'us-east-1', max_attempts = 1 }}"
        );
        let config: Config = toml::from_str(&settings).expect("settings");
        let store = Store::connect(&stack.s3_endpoint);
        let bucket = format!("fm-clean-{}", uuid::Uuid::new_v4().simple());
        store.create_bucket(&bucket).await.expect("a bucket");
        let key = "out/a.json".to_owned();
        let etag = store
            .put(&bucket, &key, b"[]".to_vec())
            .await
            .expect("an output");
        let output = Output {
            bucket: bucket.clone(),
            key,
            etag,
            sha256: String::new(),
            size: 2,
            records: 0,
        };
        Self {
            accounts: Accounts::new(&config.s3).await,
            store,
            bucket,
            output,
        }
    }

    fn client(&self) -> &Client {
        self.accounts.of(&self.bucket)
    }

    async fn put(&self, key: &str, bytes: impl Into<Vec<u8>>) -> ETag {
        self.store
            .put(&self.bucket, key, bytes.into())
            .await
            .expect("a server that serves")
    }

    async fn get(&self, key: &str) -> Option<Vec<u8>> {
        let found = self.store.get(&self.bucket, key).await;
        found
            .expect("a server that serves")
            .map(|stored| stored.bytes)
    }

    /// Does what the rule says with a source that is settled with this ETag.
    async fn clean(&self, key: &str, etag: &ETag, rule: &Rule) -> End {
        self.clean_by(key, etag, rule, CopySizes::default()).await
    }

    async fn clean_by(&self, key: &str, etag: &ETag, rule: &Rule, copy_sizes: CopySizes) -> End {
        let settled = Settled {
            etag: Some(etag.clone()),
            status: Some(Status::Converted),
            outputs: vec![self.output.clone()],
            ..Settled::default()
        };
        let object = ObjectRef::try_new(self.bucket.as_str(), key).expect("a key");
        let task = Task {
            s3: &self.accounts,
            object: &object,
            settled: &settled,
            etag,
            rule,
            copy_sizes,
        };
        // As the stage does it. The server has trouble with a copy of what is replaced meanwhile.
        for _ in 0..20 {
            match task.run().await {
                Ok(end) => return end,
                Err(error) => assert!(!is_lasting(&error), "{error}"),
            }
        }
        panic!("a server that serves");
    }

    async fn remove(self) {
        self.store
            .remove_bucket(&self.bucket)
            .await
            .expect("a server that serves");
    }
}

fn rule(after: &str) -> Rule {
    let feeds = format!("feeds = [{{ name = 'f', match = 's3://in/**', after = {after} }}]");
    let config: Config = toml::from_str(&feeds).expect("a feed");
    let after: After = config.feeds[0].after.clone();
    Rule {
        feed: "f".into(),
        action: action(&after).expect("an action"),
        after,
        unsafe_delete: false,
        refused: None,
    }
}

/// Rounds at a time; each has its own key.
const LANES: usize = 8;

/// A newer version is uploaded while the older one is cleaned up, at a moment that differs from round to round.
#[tokio::test(flavor = "multi_thread")]
async fn in_a_thousand_races_no_newer_upload_is_deleted_and_nothing_else_is_moved() {
    let Some(stack) = Stack::from_env() else {
        return;
    };
    const ROUNDS: u64 = 1_000;
    let shelf = Shelf::new(&stack).await;
    let (delete, done) = (
        rule("'delete'"),
        format!("{{ move = 's3://{}/done/' }}", shelf.bucket),
    );
    let to = rule(&done);
    let ends = [(); 3].map(|()| AtomicUsize::new(0));
    let race = async |round: u64| {
        let (key, moves) = (format!("in/{round}.xml"), round.is_multiple_of(2));
        let (older, newer) = (format!("older {round}"), format!("newer {round}"));
        let etag = shelf.put(&key, older.clone()).await;
        let rule = if moves { &to } else { &delete };
        let upload = async {
            tokio::time::sleep(Duration::from_micros(round * 7919 % 12_000)).await;
            shelf.put(&key, newer.clone()).await
        };
        let (end, _) = tokio::join!(shelf.clean(&key, &etag, rule), upload);
        let standing = shelf.get(&key).await;
        assert_eq!(
            standing.as_deref(),
            Some(newer.as_bytes()),
            "round {round}: {end:?}"
        );
        let moved = shelf.get(&format!("done/{key}")).await;
        let index = match end {
            End::Done(_) => {
                assert_eq!(moved.is_some(), moves, "round {round}");
                0
            }
            End::Changed => 1,
            End::Gone => 2,
            End::Skipped { .. } => panic!("round {round}: {end:?}"),
        };
        if let Some(moved) = moved {
            assert_eq!(moved, older.as_bytes(), "round {round}: {end:?}");
        }
        ends[index].fetch_add(1, Ordering::Relaxed);
    };
    stream::iter(0..ROUNDS)
        .for_each_concurrent(LANES, race)
        .await;
    let [done, changed, gone] = ends.map(AtomicUsize::into_inner);
    println!("done {done}, changed {changed}, gone {gone}");
    assert!(
        done > 50 && changed > 50,
        "it was no race: {done} and {changed}"
    );
    shelf.remove().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_source_goes_only_with_its_etag_and_while_its_output_stands() {
    let Some(stack) = Stack::from_env() else {
        return;
    };
    let shelf = Shelf::new(&stack).await;
    let key = "in/a b+ü%.xml";
    let old = shelf.put(key, "old").await;
    let now = shelf.put(key, "now").await;
    let done = format!("{{ move = 's3://{}/done/' }}", shelf.bucket);
    let unsafely = Rule {
        unsafe_delete: true,
        ..rule("'delete'")
    };
    for rule in [&rule("'delete'"), &rule(&done), &unsafely, &rule("'tag'")] {
        assert_eq!(shelf.clean(key, &old, rule).await, End::Changed, "{rule:?}");
    }
    assert_eq!(shelf.get(key).await.as_deref(), Some(&b"now"[..]));

    // An output that is altered, and one that is gone.
    let output = shelf.output.key.clone();
    for reason in ["output_altered", "output_absent"] {
        match reason {
            "output_altered" => _ = shelf.put(&output, "[1]").await,
            _ => shelf
                .store
                .delete(&shelf.bucket, &output)
                .await
                .expect("a server that serves"),
        }
        for rule in [&rule("'delete'"), &rule(&done), &unsafely] {
            let end = shelf.clean(key, &now, rule).await;
            assert!(
                matches!(end, End::Skipped { reason: why, .. } if why == reason),
                "{end:?}"
            );
        }
    }
    shelf.put(&output, "[]").await;
    let target = format!("s3://{}/done/{key}", shelf.bucket);
    let moved = End::Done(Some(target));
    assert_eq!(shelf.clean(key, &now, &rule(&done)).await, moved);
    assert_eq!(shelf.get(key).await, None);
    assert_eq!(
        shelf.get(&format!("done/{key}")).await.as_deref(),
        Some(&b"now"[..])
    );
    // Done again it is found done; for who deletes it is gone.
    assert_eq!(shelf.clean(key, &now, &rule(&done)).await, moved);
    assert_eq!(shelf.clean(key, &now, &rule("'delete'")).await, End::Gone);
    assert_eq!(shelf.clean(key, &now, &unsafely).await, End::Gone);

    let again = shelf.put(key, "now").await;
    assert_eq!(shelf.clean(key, &again, &unsafely).await, End::Done(None));
    assert_eq!(shelf.get(key).await, None);
    shelf.remove().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_source_is_moved_to_another_bucket_and_over_what_an_earlier_try_left_there() {
    let Some(stack) = Stack::from_env() else {
        return;
    };
    let (shelf, archive) = (Shelf::new(&stack).await, Shelf::new(&stack).await);
    let etag = shelf.put("in/a.xml", "now").await;
    archive.put("in/a.xml", "half").await;
    let to = rule(&format!("{{ move = 's3://{}' }}", archive.bucket));
    let moved = End::Done(Some(format!("s3://{}/in/a.xml", archive.bucket)));
    assert_eq!(shelf.clean("in/a.xml", &etag, &to).await, moved);
    assert_eq!(shelf.get("in/a.xml").await, None);
    assert_eq!(archive.get("in/a.xml").await.as_deref(), Some(&b"now"[..]));
    shelf.remove().await;
    archive.remove().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_large_source_is_moved_in_parts_with_what_is_said_of_it() {
    let Some(stack) = Stack::from_env() else {
        return;
    };
    const MIB: usize = 1024 * 1024;
    let shelf = Shelf::new(&stack).await;
    let bytes: Vec<u8> = (0..12 * MIB + 5).map(|n| (n / 7 % 251) as u8).collect();
    let put = shelf
        .client()
        .put_object()
        .bucket(&shelf.bucket)
        .key("in/large.xml");
    let put = put
        .body(bytes.clone().into())
        .metadata("partner", "nsx")
        .content_type("text/xml");
    let put = put.send().await.expect("a server that serves");
    let etag = ETag::parse(put.e_tag().unwrap_or_default()).expect("an ETag");
    let to = rule(&format!("{{ move = 's3://{}/done/' }}", shelf.bucket));
    let sizes = CopySizes {
        whole: 5 * MIB as i64,
        part: 5 * MIB as i64,
    };
    let other = ETag::parse("other").expect("an ETag");
    assert_eq!(
        shelf.clean_by("in/large.xml", &other, &to, sizes).await,
        End::Changed
    );
    let end = shelf.clean_by("in/large.xml", &etag, &to, sizes).await;
    assert!(matches!(end, End::Done(Some(_))), "{end:?}");
    assert_eq!(shelf.get("in/large.xml").await, None);
    let moved = shelf.store.get(&shelf.bucket, "done/in/large.xml").await;
    let moved = moved
        .expect("a server that serves")
        .expect("the moved source");
    assert!(moved.bytes == bytes, "{} bytes", moved.bytes.len());
    assert!(
        moved.etag.as_str().ends_with("-3"),
        "not in parts: {}",
        moved.etag
    );
    let said = HashMap::from([("partner".to_owned(), "nsx".to_owned())]);
    assert_eq!(
        (moved.metadata, moved.content_type.as_deref()),
        (said, Some("text/xml"))
    );
    let uploads = shelf
        .client()
        .list_multipart_uploads()
        .bucket(&shelf.bucket);
    let uploads = uploads.send().await.expect("a server that serves");
    assert_eq!(uploads.uploads().len(), 0, "parts are left");
    shelf.remove().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tag_is_put_beside_those_that_are_there() {
    let Some(stack) = Stack::from_env() else {
        return;
    };
    let shelf = Shelf::new(&stack).await;
    let put = shelf
        .client()
        .put_object()
        .bucket(&shelf.bucket)
        .key("in/a.xml");
    let put = put
        .body(b"a".to_vec().into())
        .tagging("owner=team&state=new");
    let put = put.send().await.expect("a server that serves");
    let etag = ETag::parse(put.e_tag().unwrap_or_default()).expect("an ETag");
    let done = End::Done(Some("state=json made".into()));
    for _ in 0..2 {
        let end = shelf
            .clean("in/a.xml", &etag, &rule("{ tag = 'state=json made' }"))
            .await;
        assert_eq!(end, done);
    }
    let tags = shelf
        .client()
        .get_object_tagging()
        .bucket(&shelf.bucket)
        .key("in/a.xml");
    let tags = tags.send().await.expect("a server that serves");
    let tags: BTreeMap<&str, &str> = tags
        .tag_set()
        .iter()
        .map(|tag| (tag.key(), tag.value()))
        .collect();
    assert_eq!(
        tags,
        BTreeMap::from([("owner", "team"), ("state", "json made")])
    );
    shelf.remove().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn in_a_bucket_with_versions_a_deletion_is_a_marker_and_the_version_stays() {
    use aws_sdk_s3::types::{BucketVersioningStatus, VersioningConfiguration};
    let Some(stack) = Stack::from_env() else {
        return;
    };
    let shelf = Shelf::new(&stack).await;
    let enabled = VersioningConfiguration::builder().status(BucketVersioningStatus::Enabled);
    let versioned = shelf.client().put_bucket_versioning().bucket(&shelf.bucket);
    let versioned = versioned
        .versioning_configuration(enabled.build())
        .send()
        .await;
    versioned.expect("a server with versions");
    let etag = shelf.put("in/a.xml", "a").await;
    assert_eq!(
        shelf.clean("in/a.xml", &etag, &rule("'delete'")).await,
        End::Done(None)
    );
    assert_eq!(shelf.get("in/a.xml").await, None);
    let listed = shelf
        .client()
        .list_object_versions()
        .bucket(&shelf.bucket)
        .prefix("in/");
    let listed = listed.send().await.expect("a server that serves");
    assert_eq!(
        (listed.versions().len(), listed.delete_markers().len()),
        (1, 1)
    );
    // Nothing is left of the probe, whatever it found.
    probe::conditional_deletes(shelf.client(), &shelf.bucket)
        .await
        .expect("a server that keeps its promise");
    let left = shelf.client().list_object_versions().bucket(&shelf.bucket);
    let left = left
        .prefix(probe::PREFIX)
        .send()
        .await
        .expect("a server that serves");
    assert_eq!((left.versions().len(), left.delete_markers().len()), (0, 0));
    for version in listed.versions() {
        let delete = shelf
            .client()
            .delete_object()
            .bucket(&shelf.bucket)
            .key("in/a.xml");
        let delete = delete.set_version_id(version.version_id().map(str::to_owned));
        delete.send().await.expect("a server that serves");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_ignores_the_condition_or_lets_nothing_be_put_is_told_apart() {
    let Some(stack) = Stack::from_env() else {
        return;
    };
    let gate = Gate::before(&stack.s3_endpoint).await;
    let shelf = Shelf::at(&stack, &gate.endpoint()).await;
    let probed = async || match probe::conditional_deletes(shelf.client(), &shelf.bucket).await {
        Ok(()) => String::new(),
        Err(error) => error.to_string(),
    };
    assert_eq!(probed().await, "");
    // Whatever is asked of the scratch object, it says that it did it.
    gate.fail(probe::PREFIX, Fault::Claimed);
    let ignored = probed().await;
    assert!(
        ignored.contains("ignored If-Match on a DELETE")
            && ignored.contains("unsafe_delete = true"),
        "{ignored}"
    );
    gate.open();
    gate.fail(probe::PREFIX, Fault::Status(403, "AccessDenied"));
    let read_only = probed().await;
    assert!(
        read_only.contains("read-only") && read_only.contains("after = \"keep\""),
        "{read_only}"
    );
    gate.open();
    shelf.remove().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_proven_condition_nothing_starts_and_a_reload_keeps_the_sources() {
    let Some(stack) = Stack::from_env() else {
        return;
    };
    let gate = Gate::before(&stack.s3_endpoint).await;
    gate.fail(probe::PREFIX, Fault::Claimed);
    let feed = |after: &str| PRODUCTS_FEED.replace("record =", &format!("{after}\nrecord ="));
    // Outputs are not fenced, for this server's promises are not the point here.
    let settings = "output = { conditional_writes = false }";
    let world = stack.world("clean-unproven");
    let world = world
        .settings(&format!("{settings}\n{}", feed("after = 'delete'")))
        .create()
        .await;
    let mut refused = world.worker(through(&gate, WorkerOptions::default()));
    let status = refused.wait(PATIENCE).await;
    assert_eq!(status.code(), Some(3));
    assert!(
        refused.log().contains("ignored If-Match on a DELETE"),
        "{}",
        refused.log()
    );

    let file = world.folder().join("feedmill.toml");
    let deleting = std::fs::read_to_string(&file).expect("settings");
    let rewrite = |after: &str| {
        let text = deleting.replace("after = \"delete\"", after);
        assert!(text.contains(after), "{text}");
        std::fs::write(&file, text).expect("a writable folder");
    };
    rewrite("after = \"delete\"\nunsafe_delete = true");
    let worker = start(&world, through(&gate, WorkerOptions::default())).await;
    let key = "products/a.xml";
    let source = async || {
        let store = Store::connect(&stack.s3_endpoint);
        let found = store.get(&world.origin.input_bucket, key).await;
        found.expect("a server that serves")
    };
    convert(&world, key, &ProductFile::new("a", 1)).await;
    wait_until("it is deleted", PATIENCE, async || {
        source().await.is_none().then_some(())
    })
    .await;

    rewrite("after = \"delete\"");
    worker.signal(Signal::Hangup);
    let reloaded = async || worker.has_logged("configuration reloaded").then_some(());
    wait_until("the reload", PATIENCE, reloaded).await;
    assert!(
        worker.log().contains("sources are kept although"),
        "{}",
        worker.log()
    );
    convert(&world, key, &ProductFile::new("a", 2)).await;
    let said = "a source was not cleaned up; the next sweep hands it over again";
    wait_until("it is said", PATIENCE, async || {
        worker.has_logged(said).then_some(())
    })
    .await;
    assert!(source().await.is_some());
    stop(worker).await;
}
