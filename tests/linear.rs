//! Each byte takes the same time, however many there are of whatever there may be many of: a small and a large input of one shape, in one run.

use std::io::{self, Read};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use feedmill::feed::{ConvertError, Limits, Plan, Source, convert};

/// How much slower a byte of the large input may be. It has [`GROWTH`] times as many of what is counted, which is what a square would cost; the rest
/// is for a busy machine.
const SLACK: f64 = 4.0;
const GROWTH: usize = 16;

/// How often a measurement that looks bad is made again before it counts.
const ROUNDS: usize = 8;

/// One at a time: the others would be in the measurement.
static ALONE: Mutex<()> = Mutex::new(());

/// All limits as high as they go.
fn generous() -> Limits {
    Limits {
        record_bytes: 1 << 30,
        text_bytes: 1 << 30,
        depth: 1_000,
        attributes: 1_000_000,
        ..Limits::default()
    }
}

fn plan(toml: &str) -> Plan {
    let spec = toml::from_str(toml).expect("the feed is understood");
    Plan::compile(&spec, generous()).expect("the feed compiles")
}

/// Seconds of this thread, and records.
fn time(plan: &Plan, input: impl Read) -> (f64, u64) {
    let started = thread_seconds();
    let summary = convert(plan, &Source::default(), input, io::sink()).expect("it is converted");
    (thread_seconds() - started, summary.records)
}

/// Seconds that a processor has worked for this thread: what else the machine does is not in it.
fn thread_seconds() -> f64 {
    let mut time = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: the pointer is to what lives on this stack.
    let failed = unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &mut time) };
    assert_eq!(failed, 0, "{}", io::Error::last_os_error());
    time.tv_sec as f64 + 1e-9 * time.tv_nsec as f64
}

/// `make` gives an input with so many of what may be many. Small ones are repeated until they take long enough to be measured.
#[track_caller]
fn assert_linear(toml: &str, few: usize, make: impl Fn(usize) -> String) {
    let _alone = ALONE.lock().unwrap_or_else(|failed| failed.into_inner());
    let plan = plan(toml);
    let (small, large) = (make(few), make(GROWTH * few));
    let per_byte = |input: &str, times: usize| {
        let seconds: f64 = (0..times).map(|_| time(&plan, input.as_bytes()).0).sum();
        seconds / (times * input.len()) as f64
    };
    let (mut least_small, mut least_large) = (f64::MAX, f64::MAX);
    for _ in 0..ROUNDS {
        least_small = least_small.min(per_byte(&small, GROWTH));
        least_large = least_large.min(per_byte(&large, 1));
        if least_large <= SLACK * least_small {
            return;
        }
    }
    panic!(
        "{toml}: {:.1} ns a byte of {} bytes, {:.1} ns of {}",
        1e9 * least_small,
        small.len(),
        1e9 * least_large,
        large.len()
    );
}

fn many(count: usize, piece: impl Fn(usize) -> String) -> String {
    (0..count).map(piece).collect()
}

fn record(content: &str) -> String {
    format!("<r><p>{content}</p></r>")
}

#[test]
fn records_of_a_file() {
    let tiny = |count: usize| format!("<r>{}</r>", "<p/>".repeat(count));
    assert_linear("", 5_000, tiny);
    assert_linear("fields = { a = 'a' }", 5_000, tiny);
    assert_linear("", 5_000, |count| "{}\n".repeat(count));
    assert_linear("format = 'csv'", 5_000, |count| {
        format!("a\n{}", "1\n".repeat(count))
    });
}

#[test]
fn children_of_a_record() {
    let same = |count| record(&"<a>b</a>".repeat(count));
    assert_linear("", 5_000, same);
    assert_linear("arrays = ['a']", 5_000, same);
    for field in [
        "'a'",
        "{ path = 'a', take = 'last' }",
        "{ each = 'a' }",
        "{ each = 'a', join = ',' }",
        "{ each = 'a', fields = { b = '.' } }",
    ] {
        assert_linear(&format!("fields = {{ a = {field} }}"), 5_000, same);
    }
    let names = |count| record(&many(count, |n| format!("<n{n}/>")));
    assert_linear("", 5_000, names);
    let repeated = |count| record(&many(count, |n| format!("<n{n}/><n{n}/>")));
    assert_linear("", 3_000, repeated);
    // Groups whose members stand far from each other.
    let mixed = |count| record(&many(count, |n| format!("<n{}/>", n * 7 % 1_000)));
    assert_linear("", 5_000, mixed);
}

#[test]
fn keys_of_a_keyed_object() {
    let keys = |count| record(&many(count, |n| format!("<a k='{n}'>v</a>")));
    let toml = "fields = { a = { each = 'a', key = 'k{@k}', value = '.' } }";
    assert_linear(toml, 2_000, keys);
    let same = |count| record(&"<a k='1'>v</a>".repeat(count));
    assert_linear(toml, 2_000, same);
    let toml = "fields = { a = { each = 'a', key = 'k{@k}', value = '.', fill_gaps = true } }";
    assert_linear(toml, 2_000, same);
}

#[test]
fn attributes_of_an_element() {
    let attributes = |count| {
        let attributes = many(count, |n| format!(" a{n}='{n}'"));
        format!("<r><p{attributes}/></r>")
    };
    assert_linear("", 1_000, attributes);
    assert_linear("fields = { a = '@a1' }", 1_000, attributes);
}

#[test]
fn depth_of_an_element() {
    // As many elements, at another depth.
    let deep = |depth: usize| {
        let stack = "<a>".repeat(depth) + &"</a>".repeat(depth);
        format!("<r>{}</r>", stack.repeat(30_000 / depth))
    };
    assert_linear("", 60, deep);
    assert_linear("fields = { a = 'a' }", 60, deep);
    assert_linear("record = '*/a'\nfields = { a = 'a' }", 60, deep);
    let json = |depth: usize| {
        let stack = "[".repeat(depth) + &"]".repeat(depth);
        format!("[{}]", vec![stack; 30_000 / depth].join(","))
    };
    assert_linear("", 60, json);
    let objects = |depth: usize| {
        let stack = "{\"a\":".repeat(depth) + "1" + &"}".repeat(depth);
        format!("[{}]", vec![stack; 30_000 / depth].join(","))
    };
    assert_linear("", 60, objects);
}

#[test]
fn bytes_of_a_text() {
    for piece in [
        "x",
        "&amp;",
        "é\r\n",
        "<![CDATA[x]]>",
        "<!-- x -->",
        "]]",
        "\"'",
    ] {
        assert_linear("", 5_000, |count| record(&piece.repeat(count)));
    }
    for piece in ["x", "&lt;", "\t", "&#10;"] {
        assert_linear("", 5_000, |count| {
            format!("<r><p a='{}'/></r>", piece.repeat(count))
        });
    }
    for piece in ["-", "- ", "<", "x"] {
        assert_linear("", 5_000, |count| {
            format!("<r><!-- {} --><p/></r>", piece.repeat(count))
        });
        assert_linear("", 5_000, |count| {
            format!("<r><?x {} ?><p/></r>", piece.repeat(count))
        });
    }
    let doctype = |count| {
        let declarations = many(count, |n| {
            format!("<!ENTITY e{n} '>]>'><!-- ]> -->%e;<?p ]> ?>")
        });
        format!("<!DOCTYPE r [{declarations}]><r><p/></r>")
    };
    assert_linear("", 500, doctype);
}

#[test]
fn members_and_strings_of_json() {
    let members = |count| {
        let members = many(count, |n| format!("\"k{n}\":{n},"));
        format!("[{{{members}\"k\":1}}]")
    };
    assert_linear("", 3_000, members);
    assert_linear("format = 'json'\nfields = { a = 'k1' }", 3_000, members);
    let same = |count| format!("[{{{}\"k\":1}}]", "\"k\":1,".repeat(count));
    assert_linear("", 3_000, same);
    let elements = |count| format!("[[{}1]]", "1,".repeat(count));
    assert_linear("", 5_000, elements);
    for piece in ["x", "\\n", "\\u00e9", "\\ud83d\\ude00"] {
        assert_linear("", 5_000, |count| format!("[\"{}\"]", piece.repeat(count)));
    }
    assert_linear("", 5_000, |count| format!("[{}1]", " \n".repeat(count)));
}

#[test]
fn columns_and_cells_of_csv() {
    let columns = |count| {
        let names = many(count, |n| format!("c{n},"));
        let row = "1,".repeat(count);
        format!("{names}z\n{}", format!("{row}1\n").repeat(30_000 / count))
    };
    assert_linear("format = 'csv'", 300, columns);
    assert_linear("format = 'csv'\nfields = { a = 'c1' }", 300, columns);
    for piece in ["x", "\"\"", "\n", ","] {
        let cell = |count| format!("a,b\n1,\"{}\"\n", piece.repeat(count));
        assert_linear("format = 'csv'", 5_000, cell);
    }
}

/// Hands out a little at a time.
struct Trickle<R>(R);

impl<R: Read> Read for Trickle<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let end = buffer.len().min(64);
        self.0.read(&mut buffer[..end])
    }
}

#[test]
fn a_piece_that_arrives_little_by_little() {
    let _alone = ALONE.lock().unwrap_or_else(|failed| failed.into_inner());
    let plan = plan("");
    for piece in ["x", "a='&lt;' ", "é"] {
        let input = |times: usize| format!("<r><!-- {} --><p/></r>", piece.repeat(times << 10));
        let (small, large) = (input(8), input(128));
        let per_byte = |input: &str| {
            let seconds = (0..3).map(|_| time(&plan, Trickle(input.as_bytes())).0);
            seconds.fold(f64::MAX, f64::min) / input.len() as f64
        };
        let (small, large) = (per_byte(&small), per_byte(&large));
        assert!(large <= SLACK * small, "{piece}: {small:e} {large:e}");
    }
}

#[test]
fn a_record_of_50_mb_is_converted() {
    let _alone = ALONE.lock().unwrap_or_else(|failed| failed.into_inner());
    let text = "x".repeat(1_000_000);
    let xml = record(&format!("<a>{text}</a>").repeat(50));
    assert_eq!(time(&plan(""), xml.as_bytes()).1, 1);
    assert_eq!(
        time(&plan("fields = { a = { each = 'a' } }"), xml.as_bytes()).1,
        1
    );
}

#[test]
fn a_million_tiny_records_are_converted() {
    let _alone = ALONE.lock().unwrap_or_else(|failed| failed.into_inner());
    let xml = b"<r>"
        .chain(io::Cursor::new("<p/>".repeat(1_000_000)))
        .chain(&b"</r>"[..]);
    assert_eq!(time(&plan("fields = { a = 'a' }"), xml).1, 1_000_000);
}

#[test]
fn what_is_beyond_a_limit_is_refused_at_once() {
    let _alone = ALONE.lock().unwrap_or_else(|failed| failed.into_inner());
    // More than could be read in this time.
    for (head, body) in [
        ("", "<a>"),
        ("", "["),
        ("[", "{\"a\":"),
        ("<r><p", " a='1'"),
        ("<r><", "n"),
        ("<r><p>", "x"),
        ("<r>", "<!-- "),
        ("[\"", "x"),
        ("{\"", "k"),
        ("[", "9"),
    ] {
        let endless = head.as_bytes().chain(Endless(body.as_bytes(), 0));
        let plan = Plan::compile(&Default::default(), Limits::default()).expect("it compiles");
        let started = Instant::now();
        let ended = convert(&plan, &Source::default(), endless, io::sink());
        assert!(
            matches!(ended, Err(ConvertError::Rejected(_))),
            "{head}{body}"
        );
        let took = started.elapsed();
        assert!(took < Duration::from_secs(20), "{head}{body}: {took:?}");
    }
}

/// The same for ever.
struct Endless(&'static [u8], usize);

impl Read for Endless {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        for byte in &mut *buffer {
            *byte = self.0[self.1 % self.0.len()];
            self.1 += 1;
        }
        Ok(buffer.len())
    }
}
