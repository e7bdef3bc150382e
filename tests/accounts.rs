//! Several S3 accounts: the input here and the output there, each with its own credentials; a public bucket; an assumed
//! role; and how outputs are stored.
//!
//! The input is on the run's S3 server, the other account on a second real one. STS is a stub that hands out the second
//! server's keys.

mod support;

#[path = "support/convert_world/mod.rs"]
mod convert_world;
#[path = "support/second_s3.rs"]
mod second_s3;
#[path = "support/stub.rs"]
mod stub;

use std::time::{Duration, SystemTime};

use aws_sdk_s3::primitives::{DateTime, DateTimeFormat};
use axum::http::{Method, StatusCode};
use convert_world::{
    Gate, PATIENCE, assert_converted, convert, mirrored, observe, only_output, start,
};
use feedmill::object::ObjectRef;
use feedmill::topics::ObjectEvent;
use second_s3::{ACCESS_KEY, PUBLIC_BUCKET, SECRET_KEY, SecondS3};
use stub::{Asked, Stub};
use support::files::ProductFile;
use support::{Stack, Store, WorkerOptions, World, wait_until};

const SERVICE: i32 = 3;
const KEY: &str = "products/a.xml";

/// The promise of a start: nobody waits longer than this to be told.
const START_LIMIT: Duration = Duration::from_secs(40);

const ROLE: &str = "arn:aws:iam::123456789012:role/feedmill-reader";
const EXTERNAL_ID: &str = "shop-4711";

fn version(number: u32) -> ProductFile {
    ProductFile::new("a", number)
}

/// A bucket on the second server, gone with the test.
struct There {
    store: Store,
    bucket: String,
}

impl There {
    async fn create(second: &SecondS3) -> Self {
        let random = uuid::Uuid::new_v4().simple().to_string();
        let bucket = format!("fm-there-{}", &random[..8]);
        let store = second.store();
        store.create_bucket(&bucket).await.expect("a bucket");
        Self { store, bucket }
    }

    /// Settings that send outputs here, through `endpoint`, with these credentials.
    fn settings(&self, endpoint: &str, credentials: &str) -> String {
        let bucket = &self.bucket;
        format!(
            "[output]\nbucket = {bucket:?}\n[s3.buckets.{bucket}]\nendpoint = {endpoint:?}\n\
             [s3.buckets.{bucket}.credentials]\n{credentials}\n"
        )
    }

    async fn json(&self, key: &str) -> serde_json::Value {
        let stored = self.store.get(&self.bucket, &mirrored(key)).await;
        let stored = stored.expect("the second server serves");
        serde_json::from_slice(&stored.expect("the output is there").bytes).expect("JSON")
    }
}

fn keys(secret: &str) -> String {
    format!("access_key_id = {ACCESS_KEY:?}\nsecret_access_key = {secret:?}")
}

async fn world(stack: &Stack, name: &str, settings: &str) -> World {
    stack.world(name).settings(settings).create().await
}

/// Starts a worker that must fail; everything it wrote.
async fn refused(world: &World, options: WorkerOptions) -> String {
    let mut worker = world.worker(options);
    let status = worker.wait(START_LIMIT).await;
    let log = worker.log();
    assert_eq!(status.code(), Some(SERVICE), "{log}");
    assert!(!log.contains("panicked"), "{log}");
    println!("{}", log.lines().last().unwrap_or_default());
    log
}

#[track_caller]
fn assert_says(text: &str, words: &[&str]) {
    for word in words {
        assert!(text.contains(word), "{word:?} is not said:\n{text}");
    }
}

// Two servers

#[tokio::test(flavor = "multi_thread")]
async fn a_file_of_one_server_becomes_json_on_another_with_other_credentials() {
    let (Some(stack), Some(second)) = (Stack::from_env(), SecondS3::shared().await) else {
        return;
    };
    let there = There::create(second).await;
    let settings = there.settings(&second.endpoint, &keys(SECRET_KEY));
    let world = world(
        &stack,
        "two-servers",
        &format!("{settings}[log]\nlevel = \"debug\""),
    )
    .await;
    let worker = start(&world, WorkerOptions::default()).await;

    let (_, result) = convert(&world, KEY, &version(1)).await;
    assert_eq!(only_output(&result).bucket, there.bucket);
    let (etag, _) = convert(&world, KEY, &version(2)).await;
    assert_eq!(there.json(KEY).await, version(2).json());

    // The output is looked at where it is, too.
    let output = mirrored(KEY);
    let put = there.store.put(&there.bucket, &output, b"altered".to_vec());
    put.await.expect("the second server serves");
    assert_converted(&observe(&world, KEY, None).await, &etag);
    assert_eq!(there.json(KEY).await, version(2).json());

    assert!(!worker.log().contains(SECRET_KEY), "the secret is logged");
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_credentials_of_one_account_end_the_start_and_name_its_bucket() {
    let (Some(stack), Some(second)) = (Stack::from_env(), SecondS3::shared().await) else {
        return;
    };
    let there = There::create(second).await;
    let wrong = "hush-wrong-11c2";
    let settings = there.settings(&second.endpoint, &keys(wrong));
    let world = world(
        &stack,
        "wrong-keys",
        &format!("{settings}[log]\nlevel = \"trace\""),
    )
    .await;
    let log = refused(&world, WorkerOptions::default()).await;
    let last_words = log.lines().last().unwrap_or_default();
    assert_says(
        last_words,
        &[&there.bucket, "403", "credentials", "s3.buckets"],
    );
    assert!(!log.contains(wrong), "the secret is logged");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_profile_named_for_a_bucket_goes_before_the_environments_credentials() {
    let (Some(stack), Some(second)) = (Stack::from_env(), SecondS3::shared().await) else {
        return;
    };
    let there = There::create(second).await;
    let settings = there.settings(&second.endpoint, "profile = \"partner\"");
    let world = world(&stack, "profile", &settings).await;
    let file = world.folder().join("credentials");
    let profile = format!(
        "[partner]\naws_access_key_id = {ACCESS_KEY}\naws_secret_access_key = {SECRET_KEY}\n"
    );
    std::fs::write(&file, profile).expect("a writable folder");
    let file = file.display().to_string();
    let options = WorkerOptions::default().env("AWS_SHARED_CREDENTIALS_FILE", &file);
    let _worker = start(&world, options).await;
    convert(&world, KEY, &version(1)).await;
    assert_eq!(there.json(KEY).await, version(1).json());
}

// A public bucket

#[tokio::test(flavor = "multi_thread")]
async fn a_public_bucket_is_read_unsigned_and_nobody_looks_for_credentials() {
    let (Some(stack), Some(second)) = (Stack::from_env(), SecondS3::shared().await) else {
        return;
    };
    let gate = Gate::before(&second.endpoint).await;
    let metadata_service = Stub::answering(|_| (StatusCode::NOT_FOUND, String::new())).await;
    let variable = |name: &str| std::env::var(name).unwrap_or_else(|_| "test".into());
    let settings = format!(
        "[s3.credentials]\naccess_key_id = {:?}\nsecret_access_key = {:?}\n\
         [s3.buckets.{PUBLIC_BUCKET}]\nendpoint = {:?}\ncredentials = {{ anonymous = true }}\n\
         [[feeds]]\nname = \"public\"\nmatch = \"s3://{PUBLIC_BUCKET}/**\"\nrecord = \"items/item\"\n\
         [feeds.fields]\nid = \"@id\"\nname = \"name\"\nversion = \"version\"\n\
         [output]\nkey = \"{{bucket}}/{{key}}.json\"\n",
        variable("AWS_ACCESS_KEY_ID"),
        variable("AWS_SECRET_ACCESS_KEY"),
        gate.endpoint(),
    );
    let world = world(&stack, "public", &settings).await;
    let options = WorkerOptions::default()
        .env("AWS_ACCESS_KEY_ID", "")
        .env("AWS_SECRET_ACCESS_KEY", "")
        .env(
            "AWS_EC2_METADATA_SERVICE_ENDPOINT",
            &metadata_service.endpoint,
        );
    let _worker = start(&world, options).await;

    let key = format!("{}.xml", world.origin.topic_prefix);
    let put = second
        .store()
        .put(PUBLIC_BUCKET, &key, version(1).xml())
        .await;
    let etag = put.expect("the second server serves");
    let object = ObjectRef::try_new(PUBLIC_BUCKET, &key).expect("a valid key");
    let result = convert_world::ends(&world, ObjectEvent::observed(&object, "test")).await;
    assert_converted(&result, &etag);

    let requests = gate.requests(PUBLIC_BUCKET);
    assert!(requests.len() >= 2, "a listing and a read: {requests:?}");
    let signed = requests.iter().flat_map(|request| &request.headers);
    let signed: Vec<_> = signed
        .filter(|header| header.starts_with("authorization"))
        .collect();
    assert!(signed.is_empty(), "{signed:?}");
    let asked = metadata_service.asked();
    assert!(asked.is_empty(), "{asked:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bucket_that_hides_its_listing_from_strangers_is_said_and_does_not_end_the_start() {
    let (Some(stack), Some(second)) = (Stack::from_env(), SecondS3::shared().await) else {
        return;
    };
    let there = There::create(second).await;
    let settings = format!(
        "[s3.buckets.{0}]\nendpoint = {1:?}\ncredentials = {{ anonymous = true }}\n\
         [[feeds]]\nname = \"hidden\"\nmatch = \"s3://{0}/**\"\nrecord = \"items/item\"\n\
         [output]\nkey = \"{{bucket}}/{{key}}.json\"\n",
        there.bucket, second.endpoint
    );
    let world = world(&stack, "hidden", &settings).await;
    let worker = start(&world, WorkerOptions::default()).await;
    assert_says(&worker.log(), &["can't be listed", &there.bucket]);
}

// A role

/// Answers to AssumeRole with the second server's keys, good for so long.
async fn security_token_service(lifetime: Duration) -> Stub {
    Stub::answering(move |_| {
        let expires = DateTime::from(SystemTime::now() + lifetime);
        let expires = expires.fmt(DateTimeFormat::DateTime).expect("a date");
        let body = format!(
            "<AssumeRoleResponse xmlns=\"https://sts.amazonaws.com/doc/2011-06-15/\"><AssumeRoleResult><Credentials>\
             <AccessKeyId>{ACCESS_KEY}</AccessKeyId><SecretAccessKey>{SECRET_KEY}</SecretAccessKey>\
             <SessionToken></SessionToken><Expiration>{expires}</Expiration>\
             </Credentials></AssumeRoleResult></AssumeRoleResponse>"
        );
        (StatusCode::OK, body)
    })
    .await
}

fn role() -> String {
    format!("role_arn = {ROLE:?}\nexternal_id = {EXTERNAL_ID:?}")
}

fn with_sts(sts: &Stub) -> WorkerOptions {
    WorkerOptions::default().env("AWS_ENDPOINT_URL_STS", &sts.endpoint)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_role_is_assumed_with_its_external_id_once_for_as_long_as_its_credentials_last() {
    let (Some(stack), Some(second)) = (Stack::from_env(), SecondS3::shared().await) else {
        return;
    };
    let there = There::create(second).await;
    let sts = security_token_service(Duration::from_secs(3600)).await;
    let settings = there.settings(&second.endpoint, &role());
    let world = world(
        &stack,
        "role",
        &format!("{settings}[log]\nlevel = \"debug\""),
    )
    .await;
    let worker = start(&world, with_sts(&sts)).await;
    for number in 1..=5 {
        convert(&world, KEY, &version(number)).await;
    }
    assert_eq!(there.json(KEY).await, version(5).json());

    let asked = sts.asked();
    assert_eq!(asked.len(), 1, "{asked:?}");
    let says = [
        "Action=AssumeRole",
        "role%2Ffeedmill-reader",
        "ExternalId=shop-4711",
        "RoleSessionName=feedmill-",
    ];
    assert_says(&asked[0].body, &says);
    assert!(!worker.log().contains(SECRET_KEY), "the secret is logged");
}

#[tokio::test(flavor = "multi_thread")]
async fn credentials_of_a_role_that_are_about_to_expire_are_renewed() {
    let (Some(stack), Some(second)) = (Stack::from_env(), SecondS3::shared().await) else {
        return;
    };
    let there = There::create(second).await;
    let sts = security_token_service(Duration::from_secs(5)).await;
    let settings = there.settings(&second.endpoint, &role());
    let world = world(&stack, "role-renewed", &settings).await;
    let _worker = start(&world, with_sts(&sts)).await;
    convert(&world, KEY, &version(1)).await;
    let before = sts.asked().len();
    convert(&world, KEY, &version(2)).await;
    assert!(
        sts.asked().len() > before,
        "{before} requests, and none since"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_role_that_is_refused_or_never_answered_ends_the_start_and_is_named() {
    let (Some(stack), Some(second)) = (Stack::from_env(), SecondS3::shared().await) else {
        return;
    };
    let there = There::create(second).await;
    let settings = there.settings(&second.endpoint, &role());
    let world = world(&stack, "role-refused", &settings).await;

    let refusing = Stub::answering(|_| {
        let body = "<ErrorResponse xmlns=\"https://sts.amazonaws.com/doc/2011-06-15/\"><Error><Type>Sender</Type>\
             <Code>AccessDenied</Code><Message>not authorized to perform sts:AssumeRole</Message></Error></ErrorResponse>";
        (StatusCode::FORBIDDEN, body.to_owned())
    })
    .await;
    let log = refused(&world, with_sts(&refusing)).await;
    let last_words = log.lines().last().unwrap_or_default();
    assert_says(
        last_words,
        &[
            &there.bucket,
            ROLE,
            "not authorized",
            "check its credentials",
        ],
    );

    let silent = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let silent = format!("http://{}", silent.local_addr().expect("it is bound"));
    let options = WorkerOptions::default().env("AWS_ENDPOINT_URL_STS", &silent);
    let log = refused(&world, options).await;
    let last_words = log.lines().last().unwrap_or_default();
    assert_says(last_words, &[&there.bucket, ROLE, "check its credentials"]);
}

// How outputs are stored

/// The headers of the request that says how an output is stored, when it has been sent.
fn written_with(gate: &Gate, key: &str) -> Option<Vec<String>> {
    let requests = gate.requests(&mirrored(key));
    let write = requests.into_iter().find(|request| {
        let (method, path) = (&*request.method, &request.path);
        method == "PUT" && path.contains("PutObject")
            || method == "POST" && path.contains("uploads")
    });
    write.map(|request| request.headers)
}

#[track_caller]
fn assert_headers(headers: &[String], expected: &[&str]) {
    for header in expected {
        assert!(
            headers.iter().any(|is| is == header),
            "{header}: {headers:#?}"
        );
    }
}

const LARGE: &str = "products/large.xml";

/// More than one part of an upload.
fn large() -> ProductFile {
    version(1).records(120_000)
}

#[tokio::test(flavor = "multi_thread")]
async fn outputs_are_stored_as_configured_in_one_request_and_in_parts() {
    let (Some(stack), Some(second)) = (Stack::from_env(), SecondS3::shared().await) else {
        return;
    };
    let there = There::create(second).await;
    let gate = Gate::before(&second.endpoint).await;
    let bucket = there.settings(&gate.endpoint(), &keys(SECRET_KEY));
    let options = "[output]\npart_bytes = 5242880\ncontent_type = \"application/vnd.shop+json\"\n\
         cache_control = \"max-age=60\"\nstorage_class = \"STANDARD_IA\"\n";
    let settings = bucket.replacen("[output]\n", options, 1);
    let world = world(&stack, "options", &settings).await;
    let _worker = start(&world, WorkerOptions::default()).await;
    for (key, file) in [(KEY, version(1)), (LARGE, large())] {
        convert(&world, key, &file).await;
        let headers = written_with(&gate, key).expect("a write");
        let expected = [
            "content-type: application/vnd.shop+json",
            "cache-control: max-age=60",
            "x-amz-storage-class: standard_ia",
        ];
        assert_headers(&headers, &expected);
        let stored = there.store.get(&there.bucket, &mirrored(key)).await;
        let stored = stored
            .expect("the second server serves")
            .expect("it is there");
        assert_eq!(
            stored.content_type.as_deref(),
            Some("application/vnd.shop+json")
        );
        assert_eq!(stored.cache_control.as_deref(), Some("max-age=60"));
    }
    assert_eq!(there.json(KEY).await, version(1).json());
}

/// The second server has no KMS and says so by a 500: what counts is what it was asked.
#[tokio::test(flavor = "multi_thread")]
async fn a_kms_key_is_named_where_an_output_begins() {
    let (Some(stack), Some(second)) = (Stack::from_env(), SecondS3::shared().await) else {
        return;
    };
    let there = There::create(second).await;
    let gate = Gate::before(&second.endpoint).await;
    let bucket = there.settings(&gate.endpoint(), &keys(SECRET_KEY));
    let options = "[output]\npart_bytes = 5242880\nconditional_writes = false\n\
         encryption = \"aws:kms\"\nkms_key_id = \"alias/shop\"\n";
    let settings = bucket.replacen("[output]\n", options, 1);
    let world = world(&stack, "kms", &settings).await;
    let _worker = start(&world, WorkerOptions::default()).await;
    for (key, file) in [(KEY, version(1)), (LARGE, large())] {
        world.put(key, file.xml()).await;
        world.announce(key, None).await;
        let sent = async || written_with(&gate, key);
        let headers = wait_until("the beginning of an output", PATIENCE, sent).await;
        let expected = [
            "x-amz-server-side-encryption: aws:kms",
            "x-amz-server-side-encryption-aws-kms-key-id: alias/shop",
        ];
        assert_headers(&headers, &expected);
    }
}

/// A server that has no bucket's contents and takes no storage class.
fn refusing_the_storage_class(asked: &Asked) -> (StatusCode, String) {
    match asked.method {
        Method::GET => (StatusCode::OK, "<ListBucketResult/>".into()),
        Method::PUT => (
            StatusCode::BAD_REQUEST,
            "<Error><Code>InvalidStorageClass</Code><Message>no such class</Message></Error>"
                .into(),
        ),
        _ => (StatusCode::NOT_FOUND, String::new()),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_option_that_the_server_refuses_is_found_at_start_and_is_never_a_files_fault() {
    let Some(stack) = Stack::from_env() else {
        return;
    };
    let server = Stub::answering(refusing_the_storage_class).await;
    let settings = format!(
        "[output]\nbucket = \"elsewhere\"\nstorage_class = \"NONE_SUCH\"\n\
         [s3.buckets.elsewhere]\nendpoint = {:?}\n",
        server.endpoint
    );
    let world = world(&stack, "bad-option", &settings).await;
    let log = refused(&world, WorkerOptions::default()).await;
    assert_says(
        &log,
        &["elsewhere", "InvalidStorageClass", "output.storage_class"],
    );

    // Without that look at start it is tried again and again, and said.
    let options = WorkerOptions::default().env("FEEDMILL_OUTPUT__CONDITIONAL_WRITES", "false");
    let worker = start(&world, options).await;
    world.put(KEY, version(1).xml()).await;
    world.announce(KEY, None).await;
    wait_until("the third try", PATIENCE, async || {
        let log = worker.log();
        (log.matches("attempt failed").count() >= 3).then_some(())
    })
    .await;
    assert_says(
        &worker.log(),
        &["InvalidStorageClass", "output.storage_class"],
    );
    assert!(world.results().is_empty(), "{:#?}", world.results());
}
