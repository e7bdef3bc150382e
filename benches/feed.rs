//! The conversion engine beside the parsers it is made of: the same bytes, read the same way, in the same moments.
//!
//! ```text
//! cargo bench --bench feed                  # or `just bench-feed`; a word after it picks figures by name
//! ```
//!
//! Every measurement runs what it is compared with first, so that a noisy machine meets both. The line after each figure is the ratio of the
//! fastest runs, beside its goal. `FEEDMILL_BENCH_MB` sets the size of the inputs; the ratios do not depend on it. The baseline that
//! users have today, Python's xmltodict, is `benches/xmltodict_nsx.py`; `FEEDMILL_BENCH_WRITE=FILE.xml` only writes an input for it.

#[path = "../tests/support/feeds.rs"]
mod feeds;

use std::borrow::Cow;
use std::fmt;
use std::hint::black_box;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::time::{Duration, Instant};

use criterion::{BenchmarkGroup, Criterion, SamplingMode, Throughput, measurement::WallTime};
use feedmill::feed::{Limits, Plan, Source, convert};
use feeds::{Feed, Shape};
use flate2::Compression;
use flate2::read::MultiGzDecoder;
use flate2::write::GzEncoder;
use quick_xml::events::Event;
use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use zstd::stream::read::Decoder as ZstdDecoder;

/// What the engine reads through, too.
const BUFFER_BYTES: usize = 128 << 10;

const NSX: &str = r#"
record = "nsx:items/nsx:item"

[fields]
product_id          = "@id"
product_category    = "nsx:category"
product_description = "nsx:description"
product_images      = { each = "nsx:images/nsx:image", key = "image_{@type}", value = "@url", fill_gaps = true }
prices              = { each = "nsx:prices/nsx:price", fields = { currency = "nsx:currency", value = "nsx:value" } }
"#;

const SIMPLE_JQ: &str = r#"
record = "nsx:items/nsx:item"
jq = '{ id: ."@id", category: ."nsx:category", description: ."nsx:description" }'
"#;

type Run<'a> = Box<dyn Fn() + 'a>;

struct Figure<'a> {
    name: &'a str,
    /// Of the slowest of `beside`.
    goal: f64,
    bytes: usize,
    beside: Vec<Run<'a>>,
    run: Run<'a>,
}

fn main() {
    let asked = std::env::var("FEEDMILL_BENCH_MB").ok();
    let megabytes: u64 = asked.and_then(|size| size.parse().ok()).unwrap_or(4);
    let nsx = Feed::new(Shape::Nsx, 1, megabytes * 1_300).bytes();
    if let Ok(path) = std::env::var("FEEDMILL_BENCH_WRITE") {
        return std::fs::write(path, nsx).expect("the file can be written");
    }
    let twenty = Feed::new(Shape::Twenty, 1, megabytes * 1_500).bytes();
    let lines = Feed::new(Shape::TwentyLines, 1, megabytes * 1_800).bytes();
    let rows = Feed::new(Shape::TwentyRows, 1, megabytes * 3_500).bytes();
    let gzip = gzipped(&nsx);
    let zstd = zstd::encode_all(&nsx[..], 0).expect("memory takes it");
    let nsx_fields = plan(NSX);
    let whole = plan("record = 'nsx:items/nsx:item'");
    let simple_jq = plan(SIMPLE_JQ);
    let one_of_twenty = plan("fields = { f7 = 'f7' }");
    let all_of_twenty = plan(&format!("[fields]\n{}", all_of_twenty()));
    let typed_twenty = plan(&format!("[fields]\n{}", typed_twenty()));

    let figures = [
        Figure {
            name: "NSX by fields",
            goal: 0.6,
            bytes: nsx.len(),
            beside: vec![Box::new(|| xml_events(&nsx))],
            run: Box::new(|| through(&nsx_fields, &nsx)),
        },
        Figure {
            name: "NSX whole",
            goal: 0.4,
            bytes: nsx.len(),
            beside: vec![Box::new(|| xml_events(&nsx))],
            run: Box::new(|| through(&whole, &nsx)),
        },
        Figure {
            name: "one field of twenty",
            goal: 0.85,
            bytes: twenty.len(),
            beside: vec![Box::new(|| xml_events(&twenty))],
            run: Box::new(|| through(&one_of_twenty, &twenty)),
        },
        Figure {
            name: "NSX by jq",
            goal: 0.15,
            bytes: nsx.len(),
            beside: vec![Box::new(|| xml_events(&nsx))],
            run: Box::new(|| through(&simple_jq, &nsx)),
        },
        Figure {
            name: "gzip NSX by fields",
            goal: 0.9,
            bytes: nsx.len(),
            beside: vec![
                Box::new(|| drain(MultiGzDecoder::new(&gzip[..]))),
                Box::new(|| through(&nsx_fields, &nsx)),
            ],
            run: Box::new(|| through(&nsx_fields, &gzip)),
        },
        Figure {
            name: "zstd NSX by fields",
            goal: 0.9,
            bytes: nsx.len(),
            beside: vec![
                Box::new(|| drain(ZstdDecoder::with_buffer(&zstd[..]).expect("memory is there"))),
                Box::new(|| through(&nsx_fields, &nsx)),
            ],
            run: Box::new(|| through(&nsx_fields, &zstd)),
        },
        Figure {
            name: "CSV by fields",
            goal: 0.5,
            bytes: rows.len(),
            beside: vec![Box::new(|| byte_records(&rows))],
            run: Box::new(|| through(&all_of_twenty, &rows)),
        },
        Figure {
            name: "CSV by typed fields",
            goal: 0.5,
            bytes: rows.len(),
            beside: vec![Box::new(|| byte_records(&rows))],
            run: Box::new(|| through(&typed_twenty, &rows)),
        },
        Figure {
            name: "JSON lines by fields",
            goal: 0.5,
            bytes: lines.len(),
            beside: vec![Box::new(|| borrowed_json(&lines))],
            run: Box::new(|| through(&all_of_twenty, &lines)),
        },
    ];
    let mut criterion = Criterion::default().configure_from_args();
    let mut group = criterion.benchmark_group("feed");
    group.sampling_mode(SamplingMode::Flat).sample_size(30);
    for figure in &figures {
        measure(figure, &mut group);
    }
    group.finish();
    criterion.final_summary();
}

fn measure(figure: &Figure<'_>, group: &mut BenchmarkGroup<'_, WallTime>) {
    let mut fastest_beside = vec![Duration::MAX; figure.beside.len()];
    let mut fastest = Duration::MAX;
    group.throughput(Throughput::Bytes(figure.bytes as u64));
    group.bench_function(figure.name, |bencher| {
        bencher.iter_custom(|iterations| {
            let mut total = Duration::ZERO;
            for _ in 0..iterations {
                for (beside, fastest) in figure.beside.iter().zip(&mut fastest_beside) {
                    *fastest = time(beside).min(*fastest);
                }
                let spent = time(&figure.run);
                fastest = spent.min(fastest);
                total += spent;
            }
            total
        });
    });
    // Another figure was picked on the command line.
    if fastest == Duration::MAX {
        return;
    }
    let beside = fastest_beside.iter().max().copied().unwrap_or_default();
    let rate = |time: Duration| figure.bytes as f64 / 1e6 / time.as_secs_f64();
    println!(
        "{}: {:.2} (goal {}): {:.0} MB/s beside {:.0} MB/s\n",
        figure.name,
        beside.as_secs_f64() / fastest.as_secs_f64(),
        figure.goal,
        rate(fastest),
        rate(beside),
    );
}

fn time(run: &Run<'_>) -> Duration {
    let started = Instant::now();
    run();
    started.elapsed()
}

fn plan(toml: &str) -> Plan {
    let spec = toml::from_str(toml).expect("the configuration is understood");
    Plan::compile(&spec, Limits::default()).expect("the configuration can be followed")
}

fn all_of_twenty() -> String {
    (1..=20).map(|n| format!("f{n} = 'f{n}'\n")).collect()
}

/// The numbers of the twenty as numbers.
fn typed_twenty() -> String {
    let field = |n: u64| match n.is_multiple_of(2) {
        true => format!("f{n} = {{ path = 'f{n}', type = 'integer' }}\n"),
        false => format!("f{n} = 'f{n}'\n"),
    };
    (1..=20).map(field).collect()
}

fn through(plan: &Plan, bytes: &[u8]) {
    let summary = convert(plan, &Source::default(), bytes, io::sink());
    black_box(summary.expect("the feed is converted").records);
}

fn xml_events(bytes: &[u8]) {
    let mut reader = quick_xml::Reader::from_reader(BufReader::with_capacity(BUFFER_BYTES, bytes));
    let mut buffer = Vec::new();
    loop {
        buffer.clear();
        match reader.read_event_into(&mut buffer).expect("it is XML") {
            Event::Eof => return,
            event => drop(black_box(event)),
        }
    }
}

fn gzipped(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(bytes).expect("memory takes it");
    encoder.finish().expect("memory takes it")
}

fn drain(mut input: impl Read) {
    let mut buffer = vec![0; BUFFER_BYTES];
    while input.read(&mut buffer).expect("it is not damaged") > 0 {
        black_box(&buffer);
    }
}

fn byte_records(bytes: &[u8]) {
    let mut reader = csv::ReaderBuilder::new()
        .buffer_capacity(BUFFER_BYTES)
        .from_reader(bytes);
    let mut record = csv::ByteRecord::new();
    while reader.read_byte_record(&mut record).expect("it is CSV") {
        black_box(&record);
    }
}

fn borrowed_json(bytes: &[u8]) {
    let mut reader = BufReader::with_capacity(BUFFER_BYTES, bytes);
    let mut line = Vec::new();
    while reader
        .read_until(b'\n', &mut line)
        .expect("memory gives it")
        > 0
    {
        let value: Json<'_> = serde_json::from_slice(&line).expect("it is JSON");
        black_box(value);
        line.clear();
    }
}

/// Any JSON, its text borrowed wherever it has no escapes.
#[expect(dead_code, reason = "built to be measured")]
enum Json<'a> {
    Null,
    Boolean(bool),
    Number(f64),
    String(Cow<'a, str>),
    Array(Vec<Json<'a>>),
    Object(Vec<(Json<'a>, Json<'a>)>),
}

impl<'de> Deserialize<'de> for Json<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(JsonVisitor)
    }
}

struct JsonVisitor;

impl<'de> Visitor<'de> for JsonVisitor {
    type Value = Json<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E>(self) -> Result<Json<'de>, E> {
        Ok(Json::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Json<'de>, E> {
        Ok(Json::Boolean(value))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Json<'de>, E> {
        Ok(Json::Number(value))
    }

    fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Json<'de>, E> {
        Ok(Json::String(Cow::Borrowed(text)))
    }

    fn visit_str<E>(self, text: &str) -> Result<Json<'de>, E> {
        Ok(Json::String(Cow::Owned(text.to_owned())))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<Json<'de>, A::Error> {
        let mut array = Vec::new();
        while let Some(element) = elements.next_element()? {
            array.push(element);
        }
        Ok(Json::Array(array))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Json<'de>, A::Error> {
        let mut object = Vec::new();
        while let Some(member) = members.next_entry()? {
            object.push(member);
        }
        Ok(Json::Object(object))
    }
}
