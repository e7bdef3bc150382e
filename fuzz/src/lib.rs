//! The fuzz targets of the conversion engine, one for each way through a parser. Each takes any bytes and panics if they break a promise.
//!
//! `fuzz_targets/` runs them under libFuzzer; `tests/fuzz.rs` of the main crate includes this file and runs them over the seeds.

mod promises;

use std::sync::LazyLock;
use std::time::Duration;

use feedmill::feed::spec::{Format, Spec};
use feedmill::feed::{Limits, Plan, Reason};
use promises::{Outcome, check, is_plain};
use serde_json::Value;

/// A name, and what is done with any bytes.
pub type Target = (&'static str, fn(&[u8]));

/// By name, as `just fuzz` and the folders of seeds have them.
pub const TARGETS: [Target; 9] = [
    ("xml_whole", xml_whole),
    ("xml_fields", xml_fields),
    ("json", json),
    ("json_lines", json_lines),
    ("csv", csv),
    ("containers", containers),
    ("encodings", encodings),
    ("steps", steps),
    ("spec", spec),
];

/// A feed's configuration, compiled.
struct Feed {
    spec: Spec,
    plan: Plan,
}

type Feeds = LazyLock<Vec<Feed>>;

fn feeds(tomls: &[&str]) -> Vec<Feed> {
    let feed = |toml: &&str| {
        let spec = toml::from_str(toml).expect("the feeds here can be read");
        let plan = Plan::compile(&spec, limits()).expect("the feeds here can be compiled");
        Feed { spec, plan }
    };
    tomls.iter().map(feed).collect()
}

/// Small ones, so that small inputs reach them.
fn limits() -> Limits {
    Limits {
        file_bytes: 1 << 20,
        record_bytes: 1_000,
        depth: 16,
        attributes: 8,
        name_bytes: 32,
        decompressor_bytes: 8 << 20,
        spool_bytes: 64 << 10,
        zip_entries: 8,
        nesting: 2,
        jq_outputs: 8,
        // No input may come near it; a machine that is busy should not either.
        jq_timeout: Duration::from_secs(30),
        gap: 20,
        ..Limits::default()
    }
}

fn check_all(feeds: &[Feed], input: &[u8]) -> Vec<Outcome> {
    feeds.iter().map(|feed| check(feed, input)).collect()
}

pub fn xml_whole(input: &[u8]) {
    static FEEDS: Feeds = LazyLock::new(|| {
        feeds(&[
            "format = 'xml'",
            "format = 'xml'\nrecord = 'r/p'\narrays = ['a', 'b/c']\noutput = 'lines'",
            "format = 'xml'\nrecord = ['x:r/x:p', 'x:r/q/*', '*/s']\nnamespaces = { x = 'u' }\noutput = 'pretty'",
        ])
    });
    check_all(&FEEDS, input);
}

pub fn xml_fields(input: &[u8]) {
    static FEEDS: Feeds = LazyLock::new(|| {
        feeds(&[
            "format = 'xml'\nrecord = 'r/p'",
            "format = 'xml'\nrecord = 'r/p'\nfields = { t = '.' }",
            r"
                format = 'xml'
                record = 'r/p'
                namespaces = { x = 'u' }
                [fields]
                id = { path = '@id', trim = true, default = 'none' }
                a = { each = 'x:a', value = '@b' }
                b = { path = 'b/c', take = 'last' }
                text = { each = 'b', join = ', ' }
                images = { each = 'i', key = 'image_{@n}', value = '.', fill_gaps = true }
                prices = { each = 'b', fields = { c = 'c', d = { each = 'x:a' } } }
                source = { fields = { key = '$source.key', one = { const = 1 } } }
            ",
            r"
                format = 'xml'
                record = 'r/p'
                max_rejected = '50%'
                [fields]
                id = { path = '@id', type = 'integer', required = true }
                n = { path = 'n', type = 'decimal' }
                b = { path = 'b', type = 'boolean' }
                d = { path = 'd', type = 'date', from = ['%d.%m.%Y', '%Y-%m-%dT%H:%M:%S%z'], to = '%d %b %Y' }
                e = { path = 'e', type = 'date' }
            ",
        ])
    });
    let outcomes = check_all(&FEEDS, input);
    same_records(&outcomes[0], &outcomes[1]);
    same_records(&outcomes[0], &outcomes[2]);
    // Not of the others: where a feed binds prefixes, attributes outside records are read, too.
    no_worse_formed(&outcomes[0], &outcomes[1]);
}

/// What is asked for decides nothing about how many records there are.
fn same_records(one: &Outcome, other: &Outcome) {
    if let (Outcome::Converted(one), Outcome::Converted(other)) = (one, other) {
        assert_eq!(one.summary.records, other.summary.records);
    }
}

/// What one feed can read, the other one can. XML is not the same the other way: attributes that nobody asks for go unread.
fn no_worse_formed(one: &Outcome, other: &Outcome) {
    if let (Outcome::Converted(_), Outcome::Refused(rejection)) = (one, other) {
        let is_of_form = matches!(
            rejection.reason,
            Reason::MalformedXml
                | Reason::MalformedJson
                | Reason::MalformedCsv
                | Reason::InvalidEncoding
                | Reason::EntityNotAllowed
        );
        assert!(!is_of_form, "{rejection:?}");
    }
}

fn equally_well_formed(one: &Outcome, other: &Outcome) {
    no_worse_formed(one, other);
    no_worse_formed(other, one);
}

pub fn json(input: &[u8]) {
    static FEEDS: Feeds = LazyLock::new(|| {
        feeds(&[
            "format = 'json'\noutput = 'lines'",
            "format = 'json'\nrecord = ['x/items', 'y/*']\noutput = 'pretty'",
            "format = 'json'\nrecord = 'x/items'",
            "format = 'json'\nrecord = 'x/items'\nfields = { a = 'a', b = { each = 'b/c' }, t = { path = 't', type = 'decimal' } }",
            "format = 'json'\nfields = { n = { path = 'n', type = 'integer', required = true }, o = { each = 'o', fields = { a = 'a' } } }\nmax_rejected = 2",
        ])
    });
    let outcomes = check_all(&FEEDS, input);
    same_values(Format::Json, &outcomes[0], input);
    equally_well_formed(&outcomes[0], &outcomes[4]);
    equally_well_formed(&outcomes[2], &outcomes[3]);
}

pub fn json_lines(input: &[u8]) {
    static FEEDS: Feeds = LazyLock::new(|| {
        feeds(&[
            "format = 'json_lines'\noutput = 'lines'",
            "format = 'json_lines'\nfields = { a = 'a', b = { each = 'b/c', join = '-' }, k = { each = 'o', key = '{k}', value = 'v' } }",
            "format = 'json_lines'\nfields = { d = { path = 'd', type = 'date', required = true }, t = { path = 't', type = 'boolean' } }\nmax_rejected = '90%'",
        ])
    });
    let outcomes = check_all(&FEEDS, input);
    same_values(Format::JsonLines, &outcomes[0], input);
    equally_well_formed(&outcomes[0], &outcomes[1]);
    equally_well_formed(&outcomes[0], &outcomes[2]);
}

/// serde_json reads the same out of a file; what it can read is not malformed.
fn same_values(format: Format, outcome: &Outcome, input: &[u8]) {
    if !is_plain(input) {
        return;
    }
    let text = input.strip_prefix("\u{feff}".as_bytes()).unwrap_or(input);
    let values = serde_json::Deserializer::from_slice(text).into_iter();
    let values: Result<Vec<Value>, _> = values.collect();
    let records = match values {
        Ok(values) if format == Format::JsonLines => Some(values),
        Ok(mut values) if values.len() == 1 => match values.remove(0) {
            Value::Array(records) => Some(records),
            record => Some(vec![record]),
        },
        _ => None,
    };
    match (outcome, records) {
        (Outcome::Converted(converted), Some(records)) => assert_eq!(converted.values, records),
        (Outcome::Refused(rejection), Some(_)) => {
            assert_ne!(rejection.reason, Reason::MalformedJson, "{rejection:?}");
        }
        (_, None) => {}
    }
}

pub fn csv(input: &[u8]) {
    static FEEDS: Feeds = LazyLock::new(|| {
        feeds(&[
            "format = 'csv'",
            "format = 'csv'\nfields = { a = 'a', n = { path = 'n', default = 0 } }",
            "format = 'tsv'\noutput = 'lines'\nmax_rejected = '50%'",
            "format = 'csv'\ncsv = { delimiter = ',', quote = '', comment = '#', trim = true }",
            "format = 'csv'\ncsv = { delimiter = ';', quote = \"'\", header = false, columns = ['a', 'b/c'] }\nfields = { x = 'b/c', y = { path = 'a', type = 'integer' } }\nmax_rejected = 3",
        ])
    });
    let outcomes = check_all(&FEEDS, input);
    same_records(&outcomes[0], &outcomes[1]);
    equally_well_formed(&outcomes[0], &outcomes[1]);
}

pub fn containers(input: &[u8]) {
    static FEEDS: Feeds = LazyLock::new(|| feeds(&["", "compress = 'gzip'\nmax_rejected = 2"]));
    check_all(&FEEDS, input);
}

pub fn encodings(input: &[u8]) {
    static FEEDS: Feeds = LazyLock::new(|| {
        feeds(&[
            "",
            "encoding = 'iso-8859-1'\ncompress = 'zstd'",
            "encoding = 'utf-16le'\nformat = 'csv'",
            "encoding = 'shift_jis'\nformat = 'json_lines'",
            "encoding = 'gb18030'\nformat = 'xml'",
            "encoding = 'iso-2022-jp'\nformat = 'csv'",
        ])
    });
    check_all(&FEEDS, input);
}

pub fn steps(input: &[u8]) {
    static FEEDS: Feeds = LazyLock::new(|| {
        feeds(&[
            "format = 'json_lines'\njq = '.[]?'\nmax_rejected = '50%'",
            "format = 'json_lines'\njq = '{a, b: (.b.c // 1 | tostring), n: (.n + 1), k: $source.key}'",
            r#"
                format = "json_lines"
                max_rejected = 5
                [schema]
                type = "object"
                required = ["a"]
                properties = { a = { type = "string", pattern = "^[a-z]+$" }, n = { type = "integer", multipleOf = 3 }, b = { uniqueItems = true } }
            "#,
            r"
                format = 'json_lines'
                max_rejected = '90%'
                switch = '.t'
                [cases.a]
                fields = { a = 'a', b = { each = 'b' } }
                [cases.b]
                fields = { n = { path = 'n', type = 'integer', required = true } }
                schema = { maxProperties = 1 }
                [cases.1]
                jq = 'to_entries[]'
            ",
        ])
    });
    check_all(&FEEDS, input);
}

/// The text is the TOML of a feed, and what it makes of some files keeps the promises too.
pub fn spec(input: &[u8]) {
    const FILES: [&str; 3] = [
        "<r xmlns:g='u'><p id='1'><a>x</a><g:b>2.50</g:b><a y='z'/></p><p id='2'>t</p></r>",
        "{\"p\": [{\"id\": 1, \"a\": [\"x\", null], \"b\": {\"c\": 2.50}}, {\"id\": \"2\"}]}\n",
        "id;a;b/c\n1;x;\"2\"\"\"\n2;;\n",
    ];
    let Ok(text) = std::str::from_utf8(input) else {
        return;
    };
    let Ok(spec) = toml::from_str::<Spec>(text) else {
        return;
    };
    let Ok(plan) = Plan::compile(&spec, limits()) else {
        return;
    };
    let again = Plan::compile(&spec, limits()).expect("it could be compiled a moment ago");
    assert_eq!(plan.mapping_hash(), again.mapping_hash());
    // Programs may take their time, and all memory.
    if !plan.runs_jq() {
        let feed = Feed { spec, plan };
        for file in FILES {
            check(&feed, file.as_bytes());
        }
    }
}
