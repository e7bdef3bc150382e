//! Bad input, through the webhook of a real worker and straight into `events`: whatever it is, it ends in a named outcome
//! or a 4xx, the worker stays ready, and what is good beside it is converted.

mod support;

#[path = "support/convert_world/mod.rs"]
mod convert_world;

use std::io::Write;
use std::time::Duration;

use convert_world::notifications::{aws, aws_record, message, minio, seaweedfs, versitygw};
use convert_world::{
    Bucket, PATIENCE, Webhook, answer, ask, assert_converted, assert_outcome, assert_output_at,
    assert_refused, convert, drop_bytes, mirrored, observe, open_letter, rejected, start, stop,
};
use feedmill::object::ETag;
use feedmill::topics::{Id, Intent, ObjectEvent, Outcome, ResultRecord};
use flate2::Compression;
use flate2::write::GzEncoder;
use futures::future::join_all;
use reqwest::Method;
use serde_json::{Value, json};
use support::checker::{Expectations, Topic};
use support::files::ProductFile;
use support::{Stack, Worker, WorkerOptions, World, poll_until, wait_until};

const KEY: &str = "products/a.xml";

fn file() -> ProductFile {
    ProductFile::new("a", 1)
}

/// The worker takes and converts one more file: it is neither dead nor stuck.
async fn assert_works(world: &World, worker: &mut Worker) {
    assert_eq!(worker.get("/readyz").await.0, 200);
    let key = format!("products/works-{}.xml", Id::mint());
    convert(world, &key, &file()).await;
}

async fn assert_healthy(world: &World, sources: Vec<(String, Option<Value>)>) {
    assert!(world.settles_within(PATIENCE).await, "events are left");
    let works = world
        .results()
        .into_iter()
        .filter(|r| r.key.contains("/works-"));
    let works = works.map(|result| (result.key, Some(file().json())));
    let expected = Expectations {
        sources: works.chain(sources).collect(),
        ..Expectations::default()
    };
    world.assert_healthy(&expected).await;
}

// Requests

#[tokio::test(flavor = "multi_thread")]
async fn messages_that_are_no_notification_are_refused_with_the_reason_and_kept_for_people() {
    let Some(stack) = Stack::from_env() else {
        return;
    };
    let world = stack.world("messages").create().await;
    let mut worker = start(&world, WorkerOptions::default()).await;
    let webhook = Webhook::of(&mut worker).await;
    let record = |key: &str| aws_record(&world.origin.input_bucket, key);
    let with = |path: &str, value: Value| {
        let mut record = record(KEY);
        *record.pointer_mut(path).expect("a field of a record") = value;
        message([record])
    };
    let messages: Vec<(Vec<u8>, &str)> = vec![
        (b"".to_vec(), "not JSON"),
        (b"<feed/>".to_vec(), "not JSON"),
        (b"\xff\xfe\0{".to_vec(), "not JSON"),
        (message([record(KEY)])[..40].to_vec(), "not JSON"),
        (deeply_nested(), "not JSON"),
        (b"{}".to_vec(), "no S3 notification of a known kind"),
        (b"null".to_vec(), "no S3 notification of a known kind"),
        (b"[1, 2]".to_vec(), "no S3 notification of a known kind"),
        (br#"{"Records": {}}"#.to_vec(), "not an array"),
        (message([]), "no records"),
        (message(vec![record(KEY); 1001]), "1001 records"),
        (
            br#"{"detail-type":"Object Created","source":"my.app","detail":{}}"#.to_vec(),
            "my.app",
        ),
        (with("/eventSource", json!("other:s3")), "other:s3"),
        (with("/eventVersion", json!("3.0")), "not 2.x"),
        (with("/s3", json!(null)), "no bucket name"),
        (with("/s3/bucket/name", json!("")), "no bucket name"),
        (with("/s3/bucket/name", json!("a/b")), "slash"),
        (with("/s3/object/key", json!(7)), "no object key"),
        (with("/s3/object/key", json!("")), "no object key"),
        (with("/s3/object/key", json!("100%")), "hexadecimal"),
        (with("/s3/object/key", json!("%FF")), "not UTF-8"),
        (
            with("/s3/object/key", json!("k".repeat(1025))),
            "1025 bytes",
        ),
        (message(["%", "%2"].map(record)), "none of 2 records"),
    ];
    for (body, reason) in &messages {
        let answer = webhook.post(body.clone()).await;
        assert_eq!(answer.status, 400, "{reason}: {answer:?}");
        assert!(answer.error().contains(reason), "{reason}: {answer:?}");
        assert!(answer.body.len() < 1_000, "{answer:?}");
    }
    // Whoever sends it, without a topic to trust it says nothing; it is not kept either.
    let sns = webhook.post(fixture("sns-envelope.json")).await;
    assert_eq!(sns.status, 403, "{sns:?}");
    assert!(sns.error().contains("intake.sns_topics"), "{sns:?}");
    let kept = rejected(&world).await;
    assert_eq!(kept.len(), messages.len());
    for (kept, (body, reason)) in kept.iter().zip(&messages) {
        assert!(kept.reason.contains(reason), "{reason}: {}", kept.reason);
        assert_eq!(kept.body_size, body.len() as i64);
        assert!(body.starts_with(&kept.body) && kept.body.len() <= 64 * 1024);
        assert_eq!((kept.partition, kept.offset), (None, None));
    }
    assert!(events(&world).await.is_empty(), "nothing of it is an event");
    assert_works(&world, &mut worker).await;
    assert_healthy(&world, vec![]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_that_are_wrong_already_as_http_are_answered_and_leave_nothing_behind() {
    let Some(stack) = Stack::from_env() else {
        return;
    };
    const MAX_BODY_BYTES: usize = 100_000;
    let settings = format!("[intake]\nmax_body_bytes = {MAX_BODY_BYTES}\ntoken = \"t0ken\"");
    let world = stack.world("requests").settings(&settings).create().await;
    let mut worker = start(&world, WorkerOptions::default()).await;
    let webhook = Webhook::of(&mut worker).await;
    let good = message([aws_record(&world.origin.input_bucket, KEY)]);

    for token in [
        None,
        Some("Bearer other"),
        Some("Bearer t0ke"),
        Some("Basic t0ken"),
        Some(""),
    ] {
        let mut request = webhook.notification().body(good.clone());
        if let Some(token) = token {
            request = request.header("authorization", token);
        }
        let answer = answer(request).await;
        assert_eq!(answer.status, 401, "{token:?}: {answer:?}");
        assert_eq!(answer.challenge.as_deref(), Some("Bearer"));
        assert!(!answer.body.contains("t0ken"), "{answer:?}");
    }
    for method in [Method::GET, Method::HEAD, Method::DELETE, Method::PATCH] {
        assert_eq!(
            webhook.with_method(method.clone()).await.status,
            405,
            "{method}"
        );
    }
    for path in ["/", "/api/v1/s3/events", "/api/v1/s3/event/x"] {
        let request = webhook.request(Method::POST, path).body(good.clone());
        assert_eq!(answer(request).await.status, 404, "{path}");
    }

    let authorized = |body: Vec<u8>| webhook.notification().bearer_auth("t0ken").body(body);
    let too_large = answer(authorized(vec![b' '; MAX_BODY_BYTES + 1])).await;
    assert_eq!(too_large.status, 413);
    assert!(too_large.error().contains("100000 bytes"), "{too_large:?}");
    let raw = [
        ("not HTTP at all\r\n\r\n".to_owned(), "400"),
        (
            request(&format!("x-long: {}\r\n", "x".repeat(1 << 20)), ""),
            "431",
        ),
        (request("content-length: -1\r\n", ""), "400"),
        // Without a length, so that only the bytes themselves are too many.
        (
            request(
                "transfer-encoding: chunked\r\n",
                &format!(
                    "{MAX_BODY_BYTES:x}\r\n{}\r\n1\r\n \r\n0\r\n\r\n",
                    " ".repeat(MAX_BODY_BYTES)
                ),
            ),
            "413",
        ),
        // It says more than it sends.
        (request("content-length: 50\r\n", "{"), ""),
    ];
    for (bytes, status) in raw {
        let answer = webhook.raw(bytes.as_bytes()).await;
        let expected = format!("HTTP/1.1 {status}");
        let begin = &bytes[..bytes.len().min(120)];
        assert!(
            answer.is_empty() || answer.starts_with(&expected),
            "{begin:?}: {answer:?}"
        );
        assert!(
            !answer.starts_with("HTTP/1.1 2") && !answer.starts_with("HTTP/1.1 5"),
            "{answer:?}"
        );
    }
    assert_eq!(rejected(&world).await, [], "what was not read is not kept");
    assert!(events(&world).await.is_empty());

    // The same message with the token is taken, by either method.
    let etag = world.put(KEY, file().xml()).await;
    for method in [Method::PUT, Method::POST] {
        let request = webhook.request(method, "/api/v1/s3/event");
        let answer = answer(request.bearer_auth("t0ken").body(good.clone())).await;
        assert_eq!(answer.only_record()["status"], json!("accepted"));
    }
    wait_until("both events' results", PATIENCE, async || {
        (world.results().len() == 2).then_some(())
    })
    .await;
    assert!(
        world
            .results()
            .iter()
            .any(|r| r.settled_etag == Some(etag.clone()))
    );
    assert_works(&world, &mut worker).await;
    assert_healthy(&world, vec![(KEY.into(), Some(file().json()))]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_that_is_good_in_parts_is_taken_in_parts_and_says_which() {
    let Some(stack) = Stack::from_env() else {
        return;
    };
    let world = stack.world("mixed").create().await;
    let mut worker = start(&world, WorkerOptions::default()).await;
    let webhook = Webhook::of(&mut worker).await;
    let bucket = world.origin.input_bucket.as_str();
    let record = |key: &str| aws_record(bucket, key);
    let mut removal = record(KEY);
    removal["eventName"] = json!("ObjectRemoved:Delete");
    let mut useless = record("products/b.xml");
    useless["s3"]["object"]["eTag"] = json!("no\ntag");
    useless["s3"]["object"]["size"] = json!("many");
    useless["s3"]["object"]["versionId"] = json!({});
    useless["eventTime"] = json!("yesterday");
    for key in [KEY, "products/b.xml"] {
        world.put(key, file().xml()).await;
    }

    let records = [
        record(KEY),
        removal,
        record("products/%zz"),
        record("products/"),
        json!(7),
        useless,
    ];
    let answer = webhook.post(message(records)).await;
    assert_eq!(answer.status, 202, "{answer:?}");
    let answer = answer.json();
    let statuses: Vec<_> = (0..6).map(|n| &answer["records"][n]["status"]).collect();
    assert_eq!(
        statuses,
        [
            "accepted", "ignored", "rejected", "ignored", "rejected", "accepted"
        ]
    );
    for taken in [0, 5] {
        assert_outcome(
            &result_of(&world, &answer["records"][taken]).await,
            Outcome::Converted,
        );
    }
    let kept = rejected(&world).await;
    assert_eq!(kept.len(), 2);
    assert!(String::from_utf8_lossy(&kept[0].body).contains("products/%zz"));
    assert_works(&world, &mut worker).await;
    let both = [KEY, "products/b.xml"].map(|key| (key.to_owned(), Some(file().json())));
    assert_healthy(&world, both.into()).await;
}

// Keys

/// Keys that some encoding, some file system or some program gets wrong.
const KEYS: [&str; 27] = [
    "a+b.xml",
    "a b.xml",
    "  two  spaces  .xml",
    "a%20b%2Bc.xml",
    "100%.xml",
    "%.xml",
    "%zz.xml",
    "+%2B%252B.xml",
    "Grüße/Ärger ß.xml",
    "e\u{301}clair.xml",
    "日本語/商品.xml",
    "🛒/👩‍👩‍👧.xml",
    "\u{202e}lmx.xml",
    "\u{feff}mark.xml",
    "line\nbreak.xml",
    "carriage\rreturn\tand tab.xml",
    "quotes \"'`.xml",
    "<tag>&amp;.xml",
    "query?versionId=1&x#fragment.xml",
    "semi;colon:and,comma=equals@at$dollar!.xml",
    "*?[glob]{key}{bucket}.xml",
    "~tilde^caret|pipe.xml",
    ".hidden.xml",
    "no extension",
    "dots...xml",
    "$(touch x) && rm -rf.xml",
    "'; DROP TABLE products; --.xml",
];

#[tokio::test(flavor = "multi_thread")]
async fn keys_of_any_characters_are_converted_under_their_own_name_in_every_dialect() {
    let Some(stack) = Stack::from_env() else {
        return;
    };
    let world = stack.world("keys").create().await;
    let mut worker = start(&world, WorkerOptions::default()).await;
    let webhook = Webhook::of(&mut worker).await;
    let bucket = world.origin.input_bucket.as_str();

    let mut sources = Vec::new();
    for (number, name) in KEYS.iter().enumerate() {
        let key = format!("products/{name}");
        let file = ProductFile::new("key", number as u32);
        world.put(&key, file.xml()).await;
        sources.push((key, file));
    }
    let dialects: [fn(&str, &str) -> Vec<u8>; 4] = [aws, versitygw, minio, seaweedfs];
    // The first that speaks of a key converts it; the others speak of the same object or none.
    for (round, dialect) in dialects.into_iter().enumerate() {
        let announced = sources
            .iter()
            .map(|(key, _)| notify(&world, &webhook, dialect(bucket, key)));
        for (result, (key, _)) in join_all(announced).await.iter().zip(&sources) {
            let expected = match round {
                0 => Outcome::Converted,
                _ => Outcome::Duplicate,
            };
            assert_eq!(result.outcome, expected, "{key:?} {result:#?}");
            assert_eq!(&result.key, key);
        }
    }
    for (key, file) in &sources {
        assert_output_at(&world, &mirrored(key), file).await;
    }
    assert_works(&world, &mut worker).await;
    let sources = sources.into_iter();
    assert_healthy(
        &world,
        sources
            .map(|(key, file)| (key, Some(file.json())))
            .collect(),
    )
    .await;
}

/// A key of exactly so many bytes, in pieces that any file system takes.
fn key_of(bytes: usize, letter: &str) -> String {
    let mut key = String::from("products/");
    while key.len() + letter.len() <= bytes {
        let piece = key.len() - key.rfind('/').map_or(0, |slash| slash + 1);
        key.push_str(if piece >= 100 && key.len() + 1 < bytes {
            "/"
        } else {
            letter
        });
    }
    let rest = bytes - key.len();
    key + &"x".repeat(rest)
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_up_to_1024_bytes_convert_when_the_outputs_key_fits_and_are_refused_by_name_when_not()
{
    let Some(stack) = Stack::from_env() else {
        return;
    };
    let world = stack.world("long-keys").create().await;
    let mut worker = start(&world, WorkerOptions::default()).await;
    let webhook = Webhook::of(&mut worker).await;
    let bucket = world.origin.input_bucket.clone();
    let announce = async |key: &str| notify(&world, &webhook, aws(&bucket, key)).await;
    // `{key}.json` has five bytes more. Bytes count, not characters.
    let fitting = [key_of(1019, "k"), key_of(1019, "ü")];
    let too_long = [key_of(1020, "k"), key_of(1024, "k"), key_of(1024, "ü")];
    for key in fitting.iter().chain(&too_long) {
        world.put(key, file().xml()).await;
    }
    for key in &fitting {
        assert_outcome(&announce(key).await, Outcome::Converted);
    }
    let mut letters = Vec::new();
    for key in &too_long {
        let result = announce(key).await;
        assert_refused(&result, "output_key_too_long");
        letters.push(result.dead_letter_id.expect("a dead letter's id"));
    }
    assert_eq!(
        webhook.post(aws(&bucket, &key_of(1025, "k"))).await.status,
        400
    );
    assert_works(&world, &mut worker).await;
    stop(worker).await;

    let options = WorkerOptions::default().env("FEEDMILL_OUTPUT__KEY", "{key}");
    let mut worker = start(&world, options).await;
    for (key, letter) in too_long.iter().zip(&letters) {
        assert_outcome(
            &ask(&world, key, Intent::Replay, letter).await,
            Outcome::Converted,
        );
        assert_output_at(&world, key, &file()).await;
    }
    assert_works(&world, &mut worker).await;
    let all = fitting.into_iter().chain(too_long);
    assert_healthy(&world, all.map(|key| (key, Some(file().json()))).collect()).await;
}

/// Names that S3 allows and servers treat as paths, or refuse.
#[tokio::test(flavor = "multi_thread")]
async fn events_about_keys_that_the_server_reads_otherwise_or_refuses_end_by_name() {
    let Some(stack) = Stack::from_env() else {
        return;
    };
    let world = stack.world("odd-keys").create().await;
    let mut worker = start(&world, WorkerOptions::default()).await;
    let keys = [
        "products/",
        "products/folder/",
        "products//double//slash.xml",
        "products/back\\slash.xml",
        "products/./here.xml",
        "products/../products/up.xml",
        "products/../../../../etc/passwd",
        "products/x/..",
        "products/.",
        "products/nul\0.xml",
        "products/\u{1}\u{7f}.xml",
        "products/\u{fffe}\u{ffff}.xml",
        "products/.versions/v_1",
        "products/.uploads/1/0001.xml",
    ];
    let events = keys.map(|key| world.event(key, None));
    join_all(events.iter().map(|event| world.send(event))).await;
    let ended = join_all(events.iter().map(|event| end_of(&world, event))).await;
    let mut wrong = Vec::new();
    for (key, result) in keys.iter().zip(ended) {
        match result {
            Some(result) if result.outcome == Outcome::Missing => {}
            Some(result) if result.outcome == Outcome::DeadLettered => {
                assert!(
                    result
                        .reason
                        .is_some_and(|reason| reason.starts_with("s3_"))
                );
            }
            other => wrong.push((key, other)),
        }
    }
    assert!(wrong.is_empty(), "no end, or a wrong one: {wrong:#?}");
    assert_works(&world, &mut worker).await;
}

// Files

#[tokio::test(flavor = "multi_thread")]
async fn files_that_are_not_what_they_claim_are_refused_by_name_and_leave_no_output() {
    let Some(stack) = Stack::from_env() else {
        return;
    };
    let world = stack.world("files").create().await;
    let mut worker = start(&world, WorkerOptions::default()).await;
    let webhook = Webhook::of(&mut worker).await;
    let bucket = world.origin.input_bucket.as_str();
    let good = String::from_utf8(file().xml()).expect("UTF-8");
    let xml = good.as_bytes();
    let without_declaration = good.split_once('\n').expect("two lines").1;
    let gz = gzip(xml);
    let utf16: Vec<u8> = good.encode_utf16().flat_map(u16::to_le_bytes).collect();
    let latin1: Vec<u8> = good
        .chars()
        .map(|c| u8::try_from(c).expect("Latin-1"))
        .collect();
    let declared = |label| good.replace("UTF-8", label).into_bytes();
    let laughs = b"<!DOCTYPE items [<!ENTITY a \"aaaaaaaaaa\"><!ENTITY b \"&a;&a;&a;&a;&a;\">]>";
    let with_doctype = |doctype: &[u8], entity: &str| {
        let body = without_declaration.replace("&amp;", entity);
        [doctype, body.as_bytes()].concat()
    };
    let nested = format!("<items><item>{}", "<a>".repeat(5_000));
    let attributes: String = (0..1_000).map(|n| format!(" a{n}=''")).collect();

    let files: Vec<(&str, Vec<u8>, &str)> = vec![
        ("zero-bytes.xml", vec![], "empty_file"),
        ("white-space.xml", b" \r\n\t \n".to_vec(), "empty_file"),
        ("only-a-mark.xml", b"\xef\xbb\xbf".to_vec(), "empty_file"),
        (
            "picture.xml",
            b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\0\0\x01".to_vec(),
            "unknown_format",
        ),
        ("table.xml", b"id;name\n1;a\n".to_vec(), "unknown_format"),
        (
            "zip.xml",
            b"PK\x03\x04\x14\0\0\0\x08\0".to_vec(),
            "corrupt_zip",
        ),
        (
            "zstd.xml",
            b"\x28\xb5\x2f\xfd\x04\0".to_vec(),
            "corrupt_zstd",
        ),
        (
            "bzip2.xml",
            b"BZh91AY&SY and no more".to_vec(),
            "corrupt_bzip2",
        ),
        ("xz.xml", b"\xfd7zXZ\0\0\x04".to_vec(), "corrupt_xz"),
        (
            "7z.xml",
            b"7z\xbc\xaf\x27\x1c\0\x04".to_vec(),
            "unsupported_container",
        ),
        (
            "json-array.xml",
            br#"[{"@id":"1","name":"a","version":"1"}]"#.to_vec(),
            "no_records",
        ),
        (
            "json-cut.xml",
            br#"{"items":{"item":[{"@id":"1","na"#.to_vec(),
            "malformed_json",
        ),
        (
            "page.html.xml",
            b"<!DOCTYPE html><html><body>404</body></html>".to_vec(),
            "no_records",
        ),
        (
            "wrong-root.xml",
            b"<rss><channel/></rss>".to_vec(),
            "no_records",
        ),
        ("cut.xml", file().truncated_xml(), "malformed_xml"),
        (
            "two-roots.xml",
            [xml, without_declaration.as_bytes()].concat(),
            "malformed_xml",
        ),
        (
            "mismatch.xml",
            b"<items><item id='1'></items>".to_vec(),
            "malformed_xml",
        ),
        (
            "random.xml.gz",
            gzip(b"\x01\x02\x03 garbage"),
            "unknown_format",
        ),
        ("empty.xml.gz", gzip(b""), "empty_file"),
        (
            "four-times.xml.gz",
            gzip(&gzip(&gzip(&gz))),
            "too_many_containers",
        ),
        ("cut.xml.gz", gz[..gz.len() - 12].to_vec(), "corrupt_gzip"),
        ("head-only.xml.gz", gz[..10].to_vec(), "corrupt_gzip"),
        (
            "garbage.xml.gz",
            [&gz[..10], &[0xa5; 200]].concat(),
            "corrupt_gzip",
        ),
        (
            "trailing.xml.gz",
            [&gz[..], b"more"].concat(),
            "corrupt_gzip",
        ),
        (
            "utf-16-cut.xml",
            utf16[..utf16.len() - 1].to_vec(),
            "invalid_encoding",
        ),
        (
            "utf-16-as-declared.xml",
            declared("UTF-16"),
            "invalid_encoding",
        ),
        (
            "utf-32.xml",
            b"\xff\xfe\0\0<\0\0\0".to_vec(),
            "unsupported_encoding",
        ),
        ("latin1-says-utf-8.xml", latin1, "invalid_encoding"),
        ("utf-7.xml", declared("UTF-7"), "unsupported_encoding"),
        (
            "laughs.xml",
            with_doctype(laughs, "&b;"),
            "entity_not_allowed",
        ),
        (
            "outside.xml",
            with_doctype(
                b"<!DOCTYPE items [<!ENTITY e SYSTEM \"file:///etc/passwd\">]>",
                "&e;",
            ),
            "entity_not_allowed",
        ),
        ("deep.xml", nested.into_bytes(), "too_deep"),
        (
            "attributes.xml",
            format!("<items><item{attributes}/></items>").into_bytes(),
            "too_many_attributes",
        ),
        (
            "bomb.xml.gz",
            gzip(&[&b"<items>"[..], &b"<!---->".repeat(8 << 20)].concat()),
            "decompression_ratio",
        ),
    ];
    let keys: Vec<_> = files
        .iter()
        .map(|(name, ..)| format!("products/{name}"))
        .collect();
    for (key, (_, bytes, _)) in keys.iter().zip(&files) {
        world.put(key, bytes.clone()).await;
    }
    let ended = keys
        .iter()
        .map(|key| notify(&world, &webhook, aws(bucket, key)));
    let ended = join_all(ended).await;
    let dump = world.dump().await;
    for ((key, (_, _, reason)), result) in keys.iter().zip(&files).zip(&ended) {
        assert_eq!(
            (result.outcome, result.reason.as_deref()),
            (Outcome::DeadLettered, Some(*reason)),
            "{key}: {result:#?}"
        );
        let letter = open_letter(&world, &dump, key).expect("an open letter");
        assert!(!letter.to_string().contains("root:"), "{letter}");
        assert!(world.get_output(&mirrored(key)).await.is_none(), "{key}");
    }

    // A name says nothing: these are good.
    let json = br#"{"items":{"item":[{"@id":"1","name":"a & 1","version":"1"}]}}"#;
    let good: [(&str, Vec<u8>); 4] = [
        ("packed.xml", gz.clone()),
        ("not-packed.xml.gz", xml.to_vec()),
        ("with-a-mark", [b"\xef\xbb\xbf", xml].concat()),
        ("json.xml", json.to_vec()),
    ];
    let mut sources: Vec<_> = keys.into_iter().map(|key| (key, None)).collect();
    for (name, bytes) in good {
        let key = format!("products/{name}");
        let (etag, result) = drop_bytes(&world, &key, bytes).await;
        assert_converted(&result, &etag);
        let one = json!([{"id": "1", "name": "a & 1", "version": "1"}]);
        let expected = if name == "json.xml" {
            one
        } else {
            file().json()
        };
        sources.push((key, Some(expected)));
    }
    assert_works(&world, &mut worker).await;
    assert_healthy(&world, sources).await;
}

// Buckets, and events that no intake would write

#[tokio::test(flavor = "multi_thread")]
async fn buckets_that_no_feed_knows_are_ignored_whether_they_are_there_or_not() {
    let Some(stack) = Stack::from_env() else {
        return;
    };
    let world = stack.world("foreign").create().await;
    let mut worker = start(&world, WorkerOptions::default()).await;
    let webhook = Webhook::of(&mut worker).await;
    world.put_output(KEY, file().xml()).await;
    let longer = format!("{}x", world.origin.input_bucket);
    let upper = world.origin.input_bucket.to_uppercase();
    let buckets = [
        world.origin.output_bucket.as_str(),
        "nobody-s-bucket",
        longer.as_str(),
        upper.as_str(),
        "Not A Bucket Name ü",
        "..",
    ];
    for bucket in buckets {
        let result = notify(&world, &webhook, aws(bucket, KEY)).await;
        assert_outcome(&result, Outcome::Ignored);
        assert_eq!(result.bucket, bucket);
    }
    world.delete_output(KEY).await;
    assert_works(&world, &mut worker).await;
    assert_healthy(&world, vec![]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_feeds_bucket_that_goes_away_holds_up_only_its_own_events_until_it_is_back() {
    let Some(stack) = Stack::from_env() else {
        return;
    };
    let settings = r#"
        [output]
        key = "{bucket}/{key}.json"

        [[feeds]]
        name = "products"
        match = "s3://{input}/products/**"
        record = "items/item"

        [[feeds]]
        name = "other"
        match = "s3://{input}-2/**"
        record = "items/item"
    "#;
    let builder = stack.world("gone-bucket").partitions(1).settings(settings);
    let world = builder.create().await;
    let name = format!("{}-2", world.origin.input_bucket);
    let bucket = Bucket::named(&stack, &name);
    bucket.create().await;
    let mut worker = start(&world, WorkerOptions::default()).await;
    bucket.remove().await;

    // More than a worker has in flight.
    let lost: Vec<_> = (0..20)
        .map(|n| ObjectEvent {
            bucket: name.clone(),
            ..world.event(&format!("{n}.xml"), None)
        })
        .collect();
    for event in &lost {
        world.send(event).await;
    }
    wait_until("a failed attempt in the log", PATIENCE, async || {
        let log = worker.log();
        let told = log
            .lines()
            .any(|l| l.contains("attempt failed") && l.contains(&name));
        told.then_some(())
    })
    .await;
    // One partition: what comes after it goes on.
    let etag = world.put(KEY, file().xml()).await;
    assert_converted(&observe(&world, KEY, Some(&etag)).await, &etag);
    assert_eq!(worker.get("/readyz").await.0, 200);
    assert_eq!(world.results().len(), 1, "nothing is given up");

    bucket.create().await;
    for event in &lost {
        assert!(bucket.takes(&event.key, &file().xml()).await);
    }
    for event in &lost {
        // One that looks between the two finds the bucket empty for less than its grace.
        let result = world.wait_for_result(event.id, PATIENCE).await;
        assert_outcome(&result, Outcome::Converted);
        bucket.delete(&event.key).await;
    }
    bucket.remove().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn events_with_impossible_descriptions_are_decided_by_what_is_in_the_bucket() {
    let Some(stack) = Stack::from_env() else {
        return;
    };
    let world = stack.world("descriptions").create().await;
    let mut worker = start(&world, WorkerOptions::default()).await;
    let tag = |text: &str| -> Option<ETag> { serde_json::from_value(json!(text)).ok() };
    let event = |key: &str| world.event(key, None);
    let mut events = Vec::new();
    for (number, text) in [
        "",
        "\"",
        "W/\"x\"",
        "two\nlines",
        "nul\0",
        "ümlaut",
        "*",
        "a, b",
    ]
    .into_iter()
    .enumerate()
    {
        let key = format!("products/tag-{number}.xml");
        events.push((
            text.to_owned(),
            ObjectEvent {
                etag: tag(text),
                ..event(&key)
            },
        ));
    }
    let long = "x".repeat(100_000);
    events.push((
        "a long tag".into(),
        ObjectEvent {
            etag: tag(&long),
            ..event("products/long.xml")
        },
    ));
    for (number, size) in [i64::MIN, -1, i64::MAX].into_iter().enumerate() {
        let key = format!("products/size-{number}.xml");
        events.push((
            format!("{size} bytes"),
            ObjectEvent {
                size: Some(size),
                ..event(&key)
            },
        ));
    }
    events.push((
        "a version that is not there".into(),
        ObjectEvent {
            version_id: Some("no\nversion".into()),
            ..event("products/version.xml")
        },
    ));
    let mut sources = Vec::new();
    for (_, event) in &events {
        world.put(&event.key, file().xml()).await;
        world.send(event).await;
        sources.push((event.key.clone(), Some(file().json())));
    }
    let mut wrong = Vec::new();
    let ended = join_all(events.iter().map(|(_, event)| end_of(&world, event))).await;
    for ((what, _), result) in events.iter().zip(ended) {
        match result {
            Some(result) if result.outcome == Outcome::Converted => {}
            other => wrong.push((what, other.map(|r| (r.outcome, r.reason, r.message)))),
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    assert_works(&world, &mut worker).await;
    assert_healthy(&world, sources).await;
}

// Helpers

fn fixture(name: &str) -> Vec<u8> {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/notifications");
    std::fs::read(format!("{folder}/{name}")).expect("a fixture")
}

fn deeply_nested() -> Vec<u8> {
    format!(r#"{{"Records":{}"#, "[".repeat(500_000)).into_bytes()
}

fn request(headers: &str, body: &str) -> String {
    format!(
        "POST /api/v1/s3/event HTTP/1.1\r\nhost: feedmill\r\nauthorization: Bearer t0ken\r\n\
         connection: close\r\n{headers}\r\n{body}"
    )
}

/// The Result of a record that the webhook accepted.
async fn result_of(world: &World, record: &Value) -> ResultRecord {
    assert_eq!(record["status"], json!("accepted"), "{record}");
    let id: Id = serde_json::from_value(record["event_id"].clone()).expect("an event id");
    world.wait_for_result(id, PATIENCE).await
}

/// Notifies the worker of one object and waits for that event's end.
async fn notify(world: &World, webhook: &Webhook, notification: Vec<u8>) -> ResultRecord {
    let answer = webhook.post(notification).await;
    result_of(world, &answer.only_record()).await
}

/// `None` when the event has no end in time.
async fn end_of(world: &World, event: &ObjectEvent) -> Option<ResultRecord> {
    poll_until(Duration::from_secs(40), async || {
        let results = world.results();
        results.into_iter().find(|r| r.event_id == event.id)
    })
    .await
}

/// What is in `events`.
async fn events(world: &World) -> Vec<String> {
    let dump = world.dump().await;
    let events = dump
        .records
        .into_iter()
        .filter(|r| r.topic == Topic::Events);
    events.map(|record| record.key).collect()
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(bytes).expect("writing to memory");
    encoder.finish().expect("writing to memory")
}
