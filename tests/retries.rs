//! What happens to files whose server, bucket or permission fails for a while: they wait in retry topics and come back, hold
//! nobody up, and are dead letters only when all attempts are used up.

mod support;

#[path = "support/convert_world/mod.rs"]
mod convert_world;

use convert_world::{
    Bucket, Fault, Gate, PATIENCE, assert_converted, assert_healthy, assert_outcome, assert_output,
    assert_refused, convert, observe, open_letter, refuse, start_behind, state, through,
};
use feedmill::object::ObjectRef;
use feedmill::topics::{ObjectEvent, Outcome, Status};
use support::checker::Expectations;
use support::files::ProductFile;
use support::{Stack, Worker, WorkerOptions, wait_until};

const KEY: &str = "products/a.xml";

/// Short enough for a test, long enough to be told apart.
const TIERS: &str = r#"
[s3]
max_attempts = 1
read_timeout_ms = 1_500

[retry]
in_place = "300ms"
tiers = ["1s", "2s"]
"#;

/// The same, and no bucket ever counts as away.
fn without_breaker() -> String {
    format!("{TIERS}\nbreaker = {{ failures = 1_000_000 }}\n")
}

fn file(number: u32) -> ProductFile {
    ProductFile::new("a", number)
}

async fn waits(worker: &Worker, times: usize) {
    wait_until("events to wait", PATIENCE, async || {
        (worker.log().matches("\"event waits\"").count() >= times).then_some(())
    })
    .await;
}

// Classification

#[tokio::test(flavor = "multi_thread")]
async fn whatever_may_pass_costs_a_wait_and_the_file_is_converted_by_its_own_event() {
    let Some(stack) = Stack::from_env() else {
        return;
    };
    let settings = without_breaker();
    let world = stack.world("passing").settings(&settings).create().await;
    let gate = Gate::before(&stack.s3_endpoint).await;
    let mut worker = start_behind(&world, &gate).await;
    let faults = [
        ("closed", Fault::Closed),
        ("500", Fault::Status(500, "InternalError")),
        ("503", Fault::Status(503, "SlowDown")),
        ("429", Fault::Status(429, "TooManyRequests")),
        ("403", Fault::Status(403, "AccessDenied")),
        ("400", Fault::Status(400, "RequestTimeTooSkewed")),
        ("hole", Fault::BlackHole),
        ("slow", Fault::Slow(3_000)),
    ];
    let keys: Vec<String> = (faults.iter())
        .map(|(name, _)| format!("products/{name}.xml"))
        .collect();
    let mut events = Vec::new();
    for (key, (_, fault)) in keys.iter().zip(faults) {
        let etag = world.put(key, ProductFile::new(key, 1).xml()).await;
        gate.fail(key, fault);
        events.push((world.announce(key, Some(etag.as_str())).await, etag));
    }
    // A body that breaks off half-way is no answer either.
    let cut = "products/cut.xml";
    let cut_etag = world
        .put(
            cut,
            convert_world::padded(&ProductFile::new(cut, 1), 1 << 20),
        )
        .await;
    gate.hold_bodies(cut, 100_000);
    events.push((world.announce(cut, Some(cut_etag.as_str())).await, cut_etag));
    let all = || keys.iter().map(String::as_str).chain([cut]);
    wait_until("each of them to wait", PATIENCE, async || {
        let log = worker.log();
        let waits = |key: &str| {
            let about = format!("\"key\":\"{key}\"");
            let mut lines = log.lines();
            lines.any(|line| line.contains("\"event waits\"") && line.contains(&about))
        };
        all().all(waits).then_some(())
    })
    .await;
    gate.open();
    gate.cut();
    for (id, etag) in events {
        let result = world.wait_for_result(id, PATIENCE).await;
        assert_converted(&result, &etag);
        assert!(result.attempt >= 1, "{result:#?}");
        let took = result.finished_at.0 - result.received_at.0;
        assert!(took >= 1_000, "{} came back after {took} ms", result.key);
    }
    let (_, metrics) = worker.get("/metrics").await;
    assert!(
        metrics.contains("feedmill_retries_returned_total{tier=\"1s\"}"),
        "{metrics}"
    );
    let sources: Vec<_> = all()
        .map(|key| (key, Some(ProductFile::new(key, 1).json())))
        .collect();
    assert_healthy(&world, &sources).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn used_up_attempts_open_a_letter_and_settle_nothing_and_the_next_event_tries_again() {
    let Some(stack) = Stack::from_env() else {
        return;
    };
    let settings = without_breaker();
    let world = stack.world("usedup").settings(&settings).create().await;
    let gate = Gate::before(&stack.s3_endpoint).await;
    let _worker = start_behind(&world, &gate).await;
    let settled = "products/settled.xml";
    let (first, _) = convert(&world, settled, &file(1)).await;
    gate.fail("products/", Fault::Status(503, "SlowDown"));
    let second = world.put(settled, file(2).xml()).await;
    let never = world.put(KEY, file(1).xml()).await;
    let (of_settled, of_never) = tokio::join!(
        observe(&world, settled, Some(&second)),
        observe(&world, KEY, Some(&never))
    );
    for result in [&of_settled, &of_never] {
        assert_refused(result, "s3_unavailable");
        assert_eq!(result.attempt, 2, "{result:#?}");
        let took = result.finished_at.0 - result.received_at.0;
        assert!(took >= 3_000, "both tiers were waited for: {took} ms");
    }
    assert_eq!((of_never.status, of_never.settled_etag), (None, None));
    assert_eq!(of_settled.status, Some(Status::Converted));
    assert_eq!(of_settled.settled_etag.as_ref(), Some(&first));
    let dump = world.dump().await;
    let letter = open_letter(&world, &dump, KEY).expect("an open letter");
    assert_eq!(letter["attempts"], 3);
    assert!(letter["first_failed_at"].as_i64() < letter["last_failed_at"].as_i64());
    let state = state(&world, &dump, KEY).expect("a state that names the letter");
    assert_eq!(state["dead_letter_id"], letter["id"]);

    gate.open();
    assert_converted(&observe(&world, KEY, Some(&never)).await, &never);
    assert_converted(&observe(&world, settled, Some(&second)).await, &second);
    let dump = world.dump().await;
    assert!(open_letter(&world, &dump, KEY).is_none());
    assert_healthy(
        &world,
        &[(KEY, Some(file(1).json())), (settled, Some(file(2).json()))],
    )
    .await;
}

// Order

#[tokio::test(flavor = "multi_thread")]
async fn a_newer_version_overtakes_and_an_old_failure_says_nothing_about_it() {
    let Some(stack) = Stack::from_env() else {
        return;
    };
    let settings = without_breaker();
    let world = stack.world("overtake").settings(&settings).create().await;
    let gate = Gate::before(&stack.s3_endpoint).await;
    let worker = start_behind(&world, &gate).await;
    let first = world.put(KEY, file(1).xml()).await;
    gate.fail(KEY, Fault::Status(503, "SlowDown"));
    let old = world.announce(KEY, Some(first.as_str())).await;
    waits(&worker, 1).await;
    let object = format!("s3://{}/{KEY}", world.origin.input_bucket);
    let told = world.run_cli(&["explain", &object]).await.stdout;
    assert!(told.contains("waits in the retry topic 1s"), "{told}");
    assert!(!told.contains("its result is not there"), "{told}");
    gate.open();
    let (second, _) = convert(&world, KEY, &file(2)).await;
    // It comes back to a bucket that fails again, to its end.
    gate.fail(KEY, Fault::Status(503, "SlowDown"));
    let result = world.wait_for_result(old, PATIENCE).await;
    assert_outcome(&result, Outcome::Superseded);
    assert_eq!(result.settled_etag.as_ref(), Some(&second));
    gate.open();
    assert_output(&world, KEY, &file(2)).await;
    let dump = world.dump().await;
    assert!(open_letter(&world, &dump, KEY).is_none());
    assert_healthy(&world, &[(KEY, Some(file(2).json()))]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tier_that_left_the_configuration_is_still_emptied() {
    let Some(stack) = Stack::from_env() else {
        return;
    };
    let settings = without_breaker();
    let world = stack.world("oldtier").settings(&settings).create().await;
    let gate = Gate::before(&stack.s3_endpoint).await;
    let worker = start_behind(&world, &gate).await;
    let etag = world.put(KEY, file(1).xml()).await;
    gate.fail(KEY, Fault::Closed);
    let event = world.announce(KEY, Some(etag.as_str())).await;
    waits(&worker, 1).await;
    convert_world::stop(worker).await;
    gate.open();
    let path = world.folder().join("feedmill.toml");
    let toml = std::fs::read_to_string(&path).unwrap();
    let without = toml.replace("\"1s\", ", "");
    assert_ne!(toml, without);
    std::fs::write(&path, without).unwrap();
    let _worker = start_behind(&world, &gate).await;
    let result = world.wait_for_result(event, PATIENCE).await;
    assert_converted(&result, &etag);
    assert_healthy(&world, &[(KEY, Some(file(1).json()))]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_discarded_letter_of_used_up_attempts_settles_the_version_that_failed() {
    let Some(stack) = Stack::from_env() else {
        return;
    };
    let settings = without_breaker();
    let world = stack.world("given-up").settings(&settings).create().await;
    let gate = Gate::before(&stack.s3_endpoint).await;
    let _worker = start_behind(&world, &gate).await;
    convert(&world, KEY, &file(1)).await;
    gate.fail(KEY, Fault::Status(403, "AccessDenied"));
    let second = world.put(KEY, file(2).xml()).await;
    let refused = observe(&world, KEY, Some(&second)).await;
    assert_refused(&refused, "s3_denied");
    let discard = ["dead-letters", "discard", "--all", "--why", "not ours"];
    let done = world.run_cli(&discard).await;
    assert_eq!(done.code(), Some(0), "{done:#?}");
    assert!(world.settles_within(PATIENCE).await);
    gate.open();
    let again = observe(&world, KEY, Some(&second)).await;
    assert_outcome(&again, Outcome::Duplicate);
    assert_eq!(again.status, Some(Status::Discarded));
    assert_output(&world, KEY, &file(1)).await;
}

// The breaker

#[tokio::test(flavor = "multi_thread")]
async fn files_that_are_denied_one_by_one_do_not_make_their_bucket_count_as_away() {
    const FILES: usize = 8;
    let Some(stack) = Stack::from_env() else {
        return;
    };
    let settings = format!("{TIERS}\nbreaker = {{ failures = 3, pause = \"500ms\" }}\n");
    let world = stack.world("denied").settings(&settings).create().await;
    let gate = Gate::before(&stack.s3_endpoint).await;
    let mut worker = start_behind(&world, &gate).await;
    gate.fail("products/denied/", Fault::Status(403, "AccessDenied"));
    let mut events = Vec::new();
    for number in 0..FILES {
        let key = format!("products/denied/{number}.xml");
        let etag = world.put(&key, ProductFile::new(&key, 1).xml()).await;
        events.push(world.announce(&key, Some(etag.as_str())).await);
    }
    for event in events {
        let result = world.wait_for_result(event, PATIENCE).await;
        assert_refused(&result, "s3_denied");
        assert_eq!(result.attempt, 2, "its attempts are counted: {result:#?}");
    }
    let (_, metrics) = worker.get("/metrics").await;
    assert!(!metrics.contains("feedmill_breaker_open{"), "{metrics}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bucket_that_is_away_under_load_burns_no_attempt_and_everything_drains_when_it_is_back() {
    const FILES: usize = 60;
    let Some(stack) = Stack::from_env() else {
        return;
    };
    let settings = format!("{TIERS}\nbreaker = {{ failures = 3, pause = \"500ms\" }}\n");
    let world = stack.world("away").settings(&settings).create().await;
    let gate = Gate::before(&stack.s3_endpoint).await;
    let mut worker = start_behind(&world, &gate).await;
    let bucket = world.origin.input_bucket.clone();
    gate.fail(&bucket, Fault::Status(503, "SlowDown"));
    let mut events = Vec::new();
    let mut sources = Vec::new();
    for number in 0..FILES {
        let key = format!("products/{number}.xml");
        let file = ProductFile::new(&key, 1);
        let etag = world.put(&key, file.xml()).await;
        events.push((world.announce(&key, Some(etag.as_str())).await, etag));
        sources.push((key, file));
    }
    // Every event has been sent away, and the first of them have come back more than once.
    waits(&worker, 3 * FILES).await;
    // For a longer look by hand: how long the bucket stays away after that.
    let longer = std::env::var("FEEDMILL_AWAY_SECS").ok();
    let longer = longer.and_then(|text| text.parse().ok()).unwrap_or(0);
    tokio::time::sleep(std::time::Duration::from_secs(longer)).await;
    let (_, metrics) = worker.get("/metrics").await;
    let open = format!("feedmill_breaker_open{{bucket=\"{bucket}\"}} ");
    assert!(metrics.contains(&format!("{open}1")), "{metrics}");
    assert!(world.results().is_empty());
    gate.open();
    for (id, etag) in events {
        let result = world.wait_for_result(id, PATIENCE).await;
        assert_converted(&result, &etag);
        assert_eq!(result.attempt, 0, "an attempt was burnt: {result:#?}");
    }
    let (_, metrics) = worker.get("/metrics").await;
    assert!(metrics.contains(&format!("{open}0")), "{metrics}");
    let sources: Vec<_> = (sources.iter())
        .map(|(key, file)| (key.as_str(), Some(file.json())))
        .collect();
    assert_healthy(&world, &sources).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_output_bucket_that_is_away_is_waited_for_until_the_event_is_too_old() {
    let Some(stack) = Stack::from_env() else {
        return;
    };
    let settings =
        format!("{TIERS}\nmax_age = \"4s\"\nbreaker = {{ failures = 1, pause = \"500ms\" }}\n");
    let world = stack.world("tooold").settings(&settings).create().await;
    let gate = Gate::before(&stack.s3_endpoint).await;
    let _worker = start_behind(&world, &gate).await;
    let bucket = world.origin.output_bucket.clone();
    gate.fail(&bucket, Fault::Status(503, "SlowDown"));
    let etag = world.put(KEY, file(1).xml()).await;
    let result = observe(&world, KEY, Some(&etag)).await;
    assert_refused(&result, "s3_unavailable");
    let took = result.finished_at.0 - result.received_at.0;
    assert!(took >= 4_000, "given up after {took} ms");
    assert_eq!(result.attempt, 0, "{result:#?}");
    gate.open();
    assert_converted(&observe(&world, KEY, Some(&etag)).await, &etag);
    assert_healthy(&world, &[(KEY, Some(file(1).json()))]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bucket_whose_credentials_are_revoked_does_not_slow_down_another() {
    const FILES: usize = 150;
    let Some(stack) = Stack::from_env() else {
        return;
    };
    let random = uuid::Uuid::new_v4().simple().to_string();
    let name = format!("fm-revoked-{}", &random[..8]);
    let revoked = Bucket::named(&stack, &name);
    revoked.create().await;
    let settings = format!(
        r#"{TIERS}
breaker = {{ failures = 5, pause = "1s" }}

[[feeds]]
name = "products"
match = "s3://{{input}}/products/**"
record = "items/item"

[[feeds]]
name = "revoked"
match = "s3://{name}/**"
record = "items/item"

[output]
key = "{{bucket}}/{{key}}.json"
"#
    );
    let world = stack.world("pace").settings(&settings).create().await;
    let gate = Gate::before(&stack.s3_endpoint).await;
    let mut worker = start_behind(&world, &gate).await;
    gate.fail(&name, Fault::Status(403, "AccessDenied"));
    let pace = async |round: &str| {
        let mut keys = Vec::new();
        for number in 0..FILES {
            let key = format!("products/{round}/{number}.xml");
            world.put(&key, ProductFile::new(&key, 1).xml()).await;
            keys.push(key);
        }
        let began = std::time::Instant::now();
        let mut events = Vec::new();
        for key in &keys {
            events.push(world.announce(key, None).await);
        }
        for event in events {
            let result = world.wait_for_result(event, PATIENCE).await;
            assert_outcome(&result, Outcome::Converted);
        }
        began.elapsed()
    };
    pace("warm").await;
    let alone = pace("alone").await;
    for number in 0..FILES {
        let object = ObjectRef::try_new(&name, format!("{number}.xml")).unwrap();
        world.send(&ObjectEvent::observed(&object, "test")).await;
    }
    let beside = pace("beside").await;
    let (_, metrics) = worker.get("/metrics").await;
    let open = format!("feedmill_breaker_open{{bucket=\"{name}\"}} 1");
    assert!(metrics.contains(&open), "{metrics}");
    assert!(gate.methods(&name).len() >= 5, "it was not asked");
    assert!(world.results().iter().all(|result| result.bucket != name));
    println!("{FILES} files: {alone:?} alone, {beside:?} beside a bucket that refuses");
    // The figure is within a few per cent on a quiet machine; a bucket that held others up would cost seconds.
    revoked.remove().await;
    assert!(beside < alone * 2, "{alone:?} alone, {beside:?} beside");
}

// What is not tried again

#[tokio::test(flavor = "multi_thread")]
async fn a_file_whose_own_fault_it_is_is_a_dead_letter_at_once() {
    let Some(stack) = Stack::from_env() else {
        return;
    };
    let world = stack.world("permanent").settings(TIERS).create().await;
    let gate = Gate::before(&stack.s3_endpoint).await;
    let _worker = start_behind(&world, &gate).await;
    refuse(&world, KEY, file(1).truncated_xml(), "malformed_xml").await;
    assert_eq!(world.waiting().await, Some(0));
    assert_eq!(gate.methods(KEY), ["GET"]);
}

// Crashes

const STEPS: [&str; 4] = [
    "crash-after-send",
    "crash-after-flush",
    "crash-after-offsets",
    "crash-after-commit",
];

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_may_die_at_each_step_of_sending_an_event_away_and_it_waits_once() {
    let Some(stack) = Stack::from_env() else {
        return;
    };
    let settings = without_breaker();
    let world = stack.world("sending").settings(&settings).create().await;
    let gate = Gate::before(&stack.s3_endpoint).await;
    let converts = through(
        &gate,
        WorkerOptions::default().args(&["--stages", "convert"]),
    )
    .state_dir("converts");
    for (number, fault) in (1..).zip(STEPS) {
        let etag = world.put(KEY, file(number).xml()).await;
        gate.fail(KEY, Fault::Closed);
        let event = world.announce(KEY, Some(etag.as_str())).await;
        let mut dies = world.worker(converts.clone().env("FEEDMILL_TEST_FAULT", fault));
        let status = dies.wait(PATIENCE).await;
        assert!(!status.success(), "{fault}");
        assert!(dies.log().contains("crashing as asked"), "{fault}");
        // Away until it waits, whoever sent it there.
        let mut lives = convert_world::start(&world, converts.clone()).await;
        wait_until("the event to wait", PATIENCE, async || {
            (world.waiting().await? == 1).then_some(())
        })
        .await;
        gate.open();
        let mut returns = world.worker(
            WorkerOptions::default()
                .args(&["--stages", "retry"])
                .state_dir("returns"),
        );
        let result = world.wait_for_result(event, PATIENCE).await;
        assert_converted(&result, &etag);
        assert_eq!(result.attempt, 1, "{fault}: {result:#?}");
        lives.kill();
        returns.kill();
    }
    let _worker = start_behind(&world, &gate).await;
    assert_healthy(&world, &[(KEY, Some(file(4).json()))]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_retry_stage_may_die_at_each_step_and_every_event_comes_back_once() {
    let Some(stack) = Stack::from_env() else {
        return;
    };
    let settings = without_breaker();
    let world = stack.world("dying").settings(&settings).create().await;
    let gate = Gate::before(&stack.s3_endpoint).await;
    let converts = through(
        &gate,
        WorkerOptions::default().args(&["--stages", "convert"]),
    );
    let worker = convert_world::start(&world, converts.state_dir("converts")).await;
    for (round, fault) in STEPS.into_iter().enumerate() {
        let number = u32::try_from(round).unwrap() + 1;
        let etag = world.put(KEY, file(number).xml()).await;
        gate.fail(KEY, Fault::Closed);
        let event = world.announce(KEY, Some(etag.as_str())).await;
        waits(&worker, round + 1).await;
        gate.open();
        let retries = WorkerOptions::default()
            .args(&["--stages", "retry"])
            .state_dir("retries");
        let mut dies = world.worker(retries.clone().env("FEEDMILL_TEST_FAULT", fault));
        let status = dies.wait(PATIENCE).await;
        assert!(
            !status.success() && dies.log().contains("crashing as asked"),
            "{fault}"
        );
        let mut lives = world.worker(retries);
        let result = world.wait_for_result(event, PATIENCE).await;
        assert_converted(&result, &etag);
        assert_eq!(result.attempt, 1, "{fault}: {result:#?}");
        lives.kill();
    }
    let _retries = world.worker(WorkerOptions::default().args(&["--stages", "retry"]));
    assert_healthy(&world, &[(KEY, Some(file(4).json()))]).await;
}

/// Files that fail now and then while workers are killed: what waits in retry topics is neither lost nor done twice.
#[tokio::test(flavor = "multi_thread")]
async fn files_that_wait_for_another_attempt_survive_workers_that_are_killed_again_and_again() {
    const FILES: usize = 60;
    const KILLS: u64 = 6;
    let Some(stack) = Stack::from_env() else {
        return;
    };
    let settings = format!("{TIERS}\nbreaker = {{ failures = 4, pause = \"300ms\" }}\n");
    let world = stack.world("storm").settings(&settings).create().await;
    let gate = Gate::before(&stack.s3_endpoint).await;
    let options = |number: usize| {
        through(&gate, WorkerOptions::default()).state_dir(format!("state-{number}"))
    };
    let mut workers: Vec<Worker> = (0..2).map(|number| world.worker(options(number))).collect();
    for worker in &mut workers {
        worker.ready(PATIENCE).await;
    }
    let mut expected = Expectations::default();
    for number in 0..FILES {
        let key = format!("products/{number}.xml");
        let file = ProductFile::new(&key, 1);
        let etag = world.put(&key, file.xml()).await;
        world.announce(&key, Some(etag.as_str())).await;
        expected.sources.insert(key, Some(file.json()));
    }
    for kill in 0..KILLS {
        // The whole bucket, or every tenth file of it.
        match kill % 2 {
            0 => gate.fail(&world.origin.input_bucket, Fault::Status(503, "SlowDown")),
            _ => gate.fail("1.xml", Fault::Closed),
        }
        tokio::time::sleep(std::time::Duration::from_millis(700)).await;
        gate.open();
        tokio::time::sleep(std::time::Duration::from_millis(500)).await;
        let number = usize::try_from(kill % 2).unwrap();
        workers[number].kill();
        workers[number] = world.worker(options(number));
        workers[number].ready(PATIENCE).await;
    }
    assert!(world.settles_within(PATIENCE * 2).await, "events are left");
    let waited: usize = workers
        .iter()
        .map(|worker| worker.log().matches("\"event waits\"").count())
        .sum();
    println!("{waited} waits were seen by the last workers");
    // Attempts may have been used up in the storm: a new look at each object heals what it left.
    for result in world.results() {
        if result.outcome == Outcome::DeadLettered {
            assert_eq!(
                result.reason.as_deref(),
                Some("s3_unavailable"),
                "{result:#?}"
            );
            observe(&world, &result.key, result.etag.as_ref()).await;
        }
    }
    assert!(world.settles_within(PATIENCE).await);
    world.assert_healthy(&expected).await;
}

/// The negative control: what the proof above would look like with a rule broken.
#[tokio::test(flavor = "multi_thread")]
async fn a_return_whose_offsets_are_committed_first_is_seen_by_the_checker() {
    let Some(stack) = Stack::from_env() else {
        return;
    };
    let settings = without_breaker();
    let world = stack.world("control").settings(&settings).create().await;
    let gate = Gate::before(&stack.s3_endpoint).await;
    let converts = through(
        &gate,
        WorkerOptions::default().args(&["--stages", "convert"]),
    );
    let worker = convert_world::start(&world, converts.state_dir("converts")).await;
    let etag = world.put(KEY, file(1).xml()).await;
    gate.fail(KEY, Fault::Closed);
    world.announce(KEY, Some(etag.as_str())).await;
    waits(&worker, 1).await;
    gate.open();
    let retries = WorkerOptions::default()
        .args(&["--stages", "retry"])
        .state_dir("retries");
    let planted = "offsets-before-records,crash-after-offsets";
    let mut dies = world.worker(retries.clone().env("FEEDMILL_TEST_FAULT", planted));
    assert!(!dies.wait(PATIENCE).await.success());
    let _lives = world.worker(retries);
    assert!(world.settles_within(PATIENCE).await);
    let expected = Expectations {
        sources: [(KEY.to_owned(), Some(file(1).json()))].into(),
        ..Expectations::default()
    };
    let broken: std::collections::BTreeSet<_> = (world.check(&expected).await.iter())
        .map(support::checker::Violation::rule)
        .collect();
    assert!(
        broken.contains("R10") && broken.contains("R1"),
        "{broken:?}"
    );
}
