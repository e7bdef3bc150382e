//! Memory stays flat and time linear, however large the file: the binary converts generated XML that comes through its standard input.
//!
//! A debug build takes what is affordable in every run of the tests; `just soak` takes ten gigabytes of a release build.

#[path = "support/binary.rs"]
mod binary;
#[allow(dead_code)]
#[path = "support/feeds.rs"]
mod feeds;
#[path = "support/measured.rs"]
mod measured;

use std::io::Write;
use std::process::{Child, Stdio};
use std::time::Duration;

use feeds::{Feed, Shape};
use measured::{Measured, run_fed};

/// The goal, whatever the size of the file.
const MOST_BYTES: u64 = 60_000_000;

const MB: u64 = 1_000_000;

/// Records that are generated once and sent again and again, so that the generator is never what takes the time. Some 300 KB: the memory of this
/// process is the least that is measured.
const RECORDS: u64 = 500;

const CONFIG: &str = r#"
[[feeds]]
name   = "nsx"
match  = "s3://partner-files/nsx/**"
record = "nsx:items/nsx:item"

[feeds.fields]
product_id          = "@id"
product_category    = "nsx:category"
product_description = "nsx:description"
product_images      = { each = "nsx:images/nsx:image", key = "image_{@type}", value = "@url", fill_gaps = true }
prices              = { each = "nsx:prices/nsx:price", fields = { currency = "nsx:currency", value = "nsx:value" } }

[[feeds]]
name   = "ids"
match  = "s3://partner-files/ids/**"
record = "nsx:items/nsx:item"
fields = { product_id = "@id" }
"#;

/// The generated feed as its first line and tag, its records, and its last tag.
fn parts() -> [Vec<u8>; 3] {
    let feed = String::from_utf8(Feed::new(Shape::Nsx, 1, RECORDS).bytes()).expect("UTF-8");
    let first = feed.find("  <nsx:item ").expect("a record");
    let end = feed.rfind("</nsx:items>").expect("the end tag");
    [&feed[..first], &feed[first..end], &feed[end..]].map(|part| part.as_bytes().to_vec())
}

/// Sends at least `bytes`.
fn send(bytes: u64, child: &mut Child) {
    let [head, records, tail] = parts();
    let mut stdin = child.stdin.take().expect("piped");
    let times = bytes.div_ceil(records.len() as u64);
    let pieces = std::iter::once(&head)
        .chain((0..times).map(|_| &records))
        .chain([&tail]);
    for piece in pieces {
        // A command that ends early says why.
        if stdin.write_all(piece).is_err() {
            return;
        }
    }
}

fn convert(feed: &str, bytes: u64, patience: Duration) -> Measured {
    let folder = tempfile::tempdir().expect("a temporary folder");
    std::fs::write(folder.path().join("feedmill.toml"), CONFIG).expect("it can be written");
    let mut command = binary::feedmill(folder.path(), &["convert", "-", "--feed", feed]);
    command.stdin(Stdio::piped()).stdout(Stdio::null());
    let measured = run_fed(&mut command, patience, |child| send(bytes, child));
    println!(
        "{} MB in {:.1} s, {:.1} MB of memory",
        bytes / MB,
        measured.took.as_secs_f64(),
        measured.peak_bytes as f64 / MB as f64
    );
    assert_eq!(measured.code, Some(0), "{}", measured.stderr);
    measured
}

/// The bytes of the larger file are to cost what those of the smaller one do.
fn assert_flat(feed: &str, small_bytes: u64, large_bytes: u64, patience: Duration) {
    let small = convert(feed, small_bytes, patience);
    let large = convert(feed, large_bytes, patience);
    assert!(large.peak_bytes <= MOST_BYTES, "{large:?}");
    assert!(
        large.peak_bytes * 10 <= small.peak_bytes * 11,
        "{small:?} {large:?}"
    );
    // A square would be far beyond what is left here for a busy machine.
    let times = large.cpu.as_secs_f64() / small.cpu.as_secs_f64();
    let bound = 2.0 * large_bytes as f64 / small_bytes as f64;
    assert!(times <= bound, "{small:?} {large:?}");
}

#[test]
fn a_large_file_takes_the_memory_of_a_small_one() {
    // One field of each record: an unoptimised binary makes 25 MB a second of that, and less of all fields.
    assert_flat("ids", 10 * MB, 1_000 * MB, Duration::from_secs(600));
}

#[test]
#[ignore = "takes minutes, and a release build: `just soak`"]
fn ten_gigabytes_take_the_memory_of_ten_megabytes() {
    assert_flat("nsx", 10 * MB, 10_000 * MB, Duration::from_secs(1_800));
}
