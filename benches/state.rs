//! The local state store at size: load, disk, memory, lookups. Needs no server.
//!
//! ```text
//! cargo bench --bench state              # 1 million objects; FEEDMILL_BENCH_OBJECTS=10000000 for ten
//! ```

#[path = "../tests/support/states.rs"]
mod states;

use std::{path::Path, time::Instant};

use feedmill::{
    convert::state::fold,
    kafka::store::{LogIdentity, Store},
    topics::encode,
};

/// Objects in one batch, as a restore writes them.
const BATCH: usize = 1_000;

fn main() {
    let asked = std::env::var("FEEDMILL_BENCH_OBJECTS").ok();
    let objects: usize = asked
        .and_then(|count| count.parse().ok())
        .unwrap_or(1_000_000);
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let store = Store::open(folder.path()).expect("the store can be opened");
    let log = LogIdentity {
        cluster_id: "bench".into(),
        topic_id: "bench".into(),
    };

    let started = Instant::now();
    let mut packed = 0;
    for batch in 0..objects / BATCH {
        let entries: Vec<(String, Vec<u8>)> =
            (0..BATCH).map(|n| entry(batch * BATCH + n)).collect();
        packed = entries[0].1.len();
        let changes = entries
            .iter()
            .map(|(key, value)| (key.as_bytes(), Some(value.clone())));
        let next_offset = ((batch + 1) * BATCH) as i64;
        store
            .apply(0, &log, changes, next_offset, next_offset)
            .expect("the store takes it");
    }
    let load = started.elapsed().as_secs_f64();
    println!(
        "{objects} objects of {packed} packed bytes loaded in {load:.1} s ({:.0}/s)",
        objects as f64 / load
    );

    let lookups = 200_000;
    let started = Instant::now();
    let mut found = 0;
    for n in 0..lookups {
        // Every other one is not there.
        let key = name((n * 7919) % (2 * objects));
        found += usize::from(
            store
                .get(0, key.as_bytes())
                .expect("the store answers")
                .is_some(),
        );
    }
    let rate = f64::from(lookups as u32) / started.elapsed().as_secs_f64();
    println!("{rate:.0} lookups/s, {found} of {lookups} found");
    drop(store);
    println!(
        "{} MB on disk, {} MB peak resident",
        disk(folder.path()) / 1_000_000,
        peak_resident() / 1_000_000
    );
}

fn name(n: usize) -> String {
    format!("partner-files/partner-{:03}/products-{n:08}.xml", n % 300)
}

/// Its key, and its state as the store has it.
fn entry(n: usize) -> (String, Vec<u8>) {
    let key = name(n);
    let state = states::of(
        "partner-files",
        key.strip_prefix("partner-files/").unwrap_or(&key),
        n,
    );
    let packed = fold(Some(&encode(&state))).expect("a state of our own can be read");
    (key, packed.expect("it is no tombstone"))
}

fn disk(path: &Path) -> u64 {
    let entries = std::fs::read_dir(path).into_iter().flatten().flatten();
    let sizes = entries.map(|entry| match entry.metadata() {
        Ok(metadata) if metadata.is_dir() => disk(&entry.path()),
        Ok(metadata) => metadata.len(),
        Err(_) => 0,
    });
    sizes.sum()
}

/// Bytes, as the kernel counts them (`VmHWM` in `/proc/self/status`).
fn peak_resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find(|line| line.starts_with("VmHWM:"));
    let kilobytes = line.and_then(|line| line.split_whitespace().nth(1)?.parse::<u64>().ok());
    kilobytes.unwrap_or(0) * 1024
}
