//! jq, validation, and records of several kinds.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::rejected::{reported, try_reported};
use super::*;

const ITEMS: &str = "<r><i id='1'><p>79.90</p></i><i id='2'><p>5</p><p>6</p></i><i id='3'/></r>";

fn jq(program: &str, input: &str) -> Result<String, Box<Rejection>> {
    let toml = format!("format = 'json_lines'\noutput = 'lines'\njq = '''{program}'''");
    try_reported(&toml, input).map(|(output, ..)| output)
}

fn jq_error(program: &str, input: &str) -> Box<Rejection> {
    jq(program, input).unwrap_err()
}

#[test]
fn a_program_makes_no_record_or_several_of_each() {
    let toml = "output = 'lines'\njq = 'select(.\"@id\" != \"3\") | .\"@id\" as $id | .p | if type == \"array\" then .[] else . end | {id: $id, p: .}'";
    assert_eq!(
        reported(toml, ITEMS).0,
        "{\"id\":\"1\",\"p\":\"79.90\"}\n{\"id\":\"2\",\"p\":\"5\"}\n{\"id\":\"2\",\"p\":\"6\"}\n"
    );
    let toml = "jq = 'empty'";
    assert_eq!(reported(toml, ITEMS).0, "[\n]\n");
}

#[test]
fn a_program_comes_after_fields_and_numbers_keep_their_digits() {
    let toml = "jq = '{a: .p, b: .n, sum: (.n + 1)}'\noutput = 'lines'\nfields = { p = { path = 'p', type = 'decimal' }, n = { path = '@id', type = 'integer' } }";
    assert_eq!(
        reported(toml, "<r><i id='12345678901234567890'><p>79.90</p></i></r>").0,
        "{\"a\":79.90,\"b\":12345678901234567890,\"sum\":12345678901234567891}\n"
    );
    assert_eq!(
        jq("[1.50, .x, 0.1 + 0.2, 1e3]", r#"{"x": 1.0e-7}"#).unwrap(),
        "[1.50,1.0e-7,0.30000000000000004,1e3]\n"
    );
}

#[test]
fn the_source_is_bound() {
    let plan = plan_within(Limits::default(), "output = 'lines'\njq = '$source'");
    let source = Source {
        bucket: "b".into(),
        key: "k".into(),
        etag: "e".into(),
        last_modified: None,
        feed: "f".into(),
    };
    let mut output = Vec::new();
    convert(&plan, &source, &b"{}"[..], &mut output).unwrap();
    assert_eq!(
        String::from_utf8(output).unwrap(),
        "{\"bucket\":\"b\",\"key\":\"k\",\"etag\":\"e\",\"last_modified\":null,\"feed\":\"f\"}\n"
    );
}

#[test]
fn an_error_of_a_program_rejects_the_record_with_its_place() {
    let toml =
        "max_rejected = 1\noutput = 'lines'\njq = 'if .n == 2 then error(\"two\") else . end'";
    let (output, report, _) = reported(toml, "{\"n\":1}\n{\"n\":2}\n{\"n\":3}\n");
    assert_eq!(output, "{\"n\":1}\n{\"n\":3}\n");
    assert_eq!(
        report,
        [
            json!({"record": 2, "reason": "mapping_error", "message": "two", "line": 2, "column": 1, "byte_offset": 8, "path": null, "excerpt": "{\"n\":2}"})
        ]
    );
    let refused = try_reported("jq = '.p | tonumber'", ITEMS).unwrap_err();
    assert_eq!(
        (refused.reason, refused.record, refused.column),
        (Reason::MappingError, Some(2), Some(30))
    );
    let empty =
        try_reported("jq = 'if .\"@id\" == \"3\" then error else . end'", ITEMS).unwrap_err();
    assert_eq!((empty.record, empty.column), (Some(3), Some(60)));
}

#[test]
fn what_json_has_not_is_an_error_of_the_program() {
    for program in [
        "{(0): 1}",
        "infinite",
        "nan",
        "\"a\" | tobytes",
        "reduce range(200) as $i (0; [.])",
    ] {
        assert_eq!(
            jq_error(program, "{}").reason,
            Reason::MappingError,
            "{program}"
        );
    }
}

#[test]
fn what_would_not_depend_on_the_file_alone_is_not_there() {
    let error = |program: &str| {
        let spec = spec::Spec {
            jq: Some(program.into()),
            ..spec::Spec::default()
        };
        let error = Plan::compile(&spec, Limits::default()).unwrap_err();
        crate::failure::chain(&error)
    };
    for name in [
        "now",
        "localtime",
        "env",
        "debug",
        "halt",
        "halt_error",
        "stderr",
    ] {
        assert!(
            error(name).contains("outputs depend on the file alone"),
            "{name}"
        );
    }
    for program in [
        "input",
        "inputs",
        "$ENV",
        "input_line_number",
        "$__prog_args",
        "import \"a\" as a; 1",
        "include \"a\"; 1",
        "getpath",
    ] {
        assert!(
            error(program).contains("line 1, column "),
            "{program}: {}",
            error(program)
        );
    }
    assert_eq!(
        error("{a: .b,\n c: foo(.d)}"),
        "the jq program can't be compiled: line 2, column 5: there is no filter foo\n   c: foo(.d)}\n      ^"
    );
    assert!(error(".a | (").contains("line 1, column 7: expected closing parenthesis"));
    assert!(error("").contains("expected term"));
}

#[test]
fn the_library_of_jq_is_there() {
    for (program, output) in [
        ("[range(3)]", "[0,1,2]"),
        ("[range(5; 0; -2)]", "[5,3,1]"),
        ("[range(0; 1; 0)] | length", ""),
        (
            "\"a-b\" | test(\"^a\") and (split(\"-\") | length == 2)",
            "true",
        ),
        (
            "\"2021-03-01T08:00:00Z\" | fromdate | strftime(\"%Y-%m-%d %H:%M:%S\")",
            "\"2021-03-01 08:00:00\"",
        ),
        ("[3,1,2] | sort | map(. * 2) | add", "12"),
        ("{a: 1} | to_entries[0].key | @base64", "\"YQ==\""),
        ("[limit(3; repeat(1))]", "[1,1,1]"),
        ("\"x\" | ascii_upcase | gsub(\"X\"; \"y\")", "\"y\""),
        ("try error(\"e\") catch .", "\"e\""),
        ("{\"b\": 1, \"a\": 2} | keys", "[\"a\",\"b\"]"),
        ("4 | sqrt | floor", "2"),
        ("\"<a>\" | @html", "\"&lt;a&gt;\""),
        ("[1,[2]] | flatten | tojson", "\"[1,2]\""),
    ] {
        if output.is_empty() {
            assert_eq!(
                jq_error(program, "{}").reason,
                Reason::MappingTimeout,
                "{program}"
            );
        } else {
            assert_eq!(jq(program, "{}").unwrap().trim_end(), output, "{program}");
        }
    }
}

#[test]
fn a_program_that_does_not_end_refuses_the_file() {
    for program in [
        "def f: f; f",
        "[repeat(1)] | length",
        "last(range(infinite))",
        "reduce repeat(1) as $i (0; . + $i)",
        "until(false; .)",
        "label $out | foreach range(1e18) as $i (0; $i; empty)",
        "[limit(0; 1)] | while(true; .) | empty",
    ] {
        let toml = format!("max_rejected = '100%'\njq = '''{program}'''");
        let plan = plan_within(
            Limits {
                jq_timeout: Duration::from_millis(100),
                ..Limits::default()
            },
            &toml,
        );
        let began = Instant::now();
        let refused = run(&plan, &b"{}\n{}"[..]).unwrap_err();
        assert_eq!(
            (refused.reason, refused.record),
            (Reason::MappingTimeout, Some(1)),
            "{program}"
        );
        assert!(began.elapsed() < Duration::from_secs(5), "{program}");
    }
    // All were stopped, some of them a moment after they were given up.
    wait_for_no_abandoned_thread();

    // Inside a native function nothing can be stopped: its thread is left behind, and counted until it ends.
    let slow = plan_within(
        Limits {
            jq_timeout: Duration::from_millis(50),
            ..Limits::default()
        },
        "jq = '\"ab\" * 500000 | test(\"^[ab]*([ab]?){100}[^ab]$\")'",
    );
    let refused = run(&slow, &b"{}"[..]).unwrap_err();
    assert_eq!(refused.reason, Reason::MappingTimeout);
    assert!(abandoned_threads() > 0);
    wait_for_no_abandoned_thread();
}

fn wait_for_no_abandoned_thread() {
    let began = Instant::now();
    while abandoned_threads() > 0 {
        assert!(
            began.elapsed() < Duration::from_secs(120),
            "it goes on for ever"
        );
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn a_program_that_calls_itself_without_end_costs_its_record_and_not_the_process() {
    for program in ["def f: 1 + f; f", "def f: [f]; f", "[recurse([.])]"] {
        let refused = jq_error(program, "{}");
        assert!(
            matches!(
                refused.reason,
                Reason::MappingError | Reason::MappingTimeout
            ),
            "{program}: {refused:?}"
        );
    }
}

#[test]
fn the_records_of_one_are_counted_and_measured() {
    let within = |limits: Limits, program: &str| {
        let toml = format!("max_rejected = '100%'\njq = '{program}'");
        run(&plan_within(limits, &toml), &b"{}"[..]).map_err(|rejection| rejection.reason)
    };
    let limits = Limits {
        jq_outputs: 3,
        record_bytes: 100,
        ..Limits::default()
    };
    assert!(within(limits.clone(), "range(3)").is_ok());
    assert_eq!(
        within(limits.clone(), "range(4)"),
        Err(Reason::TooManyOutputs)
    );
    assert_eq!(within(limits, "[range(100)]"), Err(Reason::RecordTooLarge));
}

#[test]
fn rejections_keep_the_order_of_the_file_whoever_finds_them() {
    let toml = "max_rejected = '100%'\njq = 'if .n % 3 == 0 then error(\"three\") else . end'\nschema = { properties = { n = { not = { multipleOf = 5 } } } }\nfields = { n = { path = 'n', type = 'integer', required = true } }";
    let lines: String = (1..=3_000)
        .map(|n| {
            if n % 7 == 0 {
                "{}\n".into()
            } else {
                format!("{{\"n\":{n}}}\n")
            }
        })
        .collect();
    let (output, report, summary) = reported(toml, &lines);
    let kept: Vec<Value> = serde_json::from_str(&output).unwrap();
    let is_kept = |n: &u64| !n.is_multiple_of(3) && !n.is_multiple_of(5) && !n.is_multiple_of(7);
    let expected: Vec<_> = (1..=3_000)
        .filter(is_kept)
        .map(|n| json!({"n": n}))
        .collect();
    assert_eq!(kept, expected);
    let rejected: Vec<_> = report
        .iter()
        .map(|line| line["record"].as_u64().unwrap())
        .collect();
    assert_eq!(
        rejected,
        (1..=3_000).filter(|n| !is_kept(n)).collect::<Vec<_>>()
    );
    assert!(report.iter().all(|line| line["line"] == line["record"]));
    assert_eq!(summary.records + summary.rejected, 3_000);
    for (record, reason) in [
        (7, "missing_field"),
        (3, "mapping_error"),
        (5, "schema_violation"),
    ] {
        let line = report.iter().find(|line| line["record"] == record).unwrap();
        assert_eq!(line["reason"], reason);
    }
}

#[test]
fn of_two_reasons_the_one_of_the_earlier_record_counts() {
    let toml = "jq = 'if .n == 2 then error(\"two\") else . end'";
    let refused = try_reported(toml, "[{\"n\":1},{\"n\":2},{\"n\":3},{\"n\":").unwrap_err();
    assert_eq!(
        (refused.reason, refused.record),
        (Reason::MappingError, Some(2))
    );
    let refused = try_reported(toml, "[{\"n\":1},{\"n\":3},{\"n\":").unwrap_err();
    assert_eq!(
        (refused.reason, refused.record),
        (Reason::MalformedJson, Some(3))
    );
}

#[test]
fn deep_records_pass_through_every_step() {
    let limits = Limits {
        depth: 1_000,
        ..Limits::default()
    };
    let deep = format!("{}1{}", "[".repeat(1_000), "]".repeat(1_000));
    for toml in [
        "",
        "jq = '.'",
        "schema = { type = 'array' }",
        "jq = '.'\nschema = { type = 'array' }",
        "jq = '[..] | length'",
    ] {
        let plan = plan_within(limits.clone(), &format!("format = 'json_lines'\n{toml}"));
        assert!(run(&plan, deep.as_bytes()).is_ok(), "{toml}");
    }
}

#[test]
fn a_schema_is_checked_against_the_record_as_it_is_output() {
    let toml = r#"
        max_rejected = 1
        fields = { id = { path = "@id", type = "integer" }, prices = { each = "p", type = "decimal" } }
        [schema]
        required = ["id"]
        [schema.properties.prices]
        minItems = 1
    "#;
    let (output, report, _) = reported(toml, ITEMS);
    assert_eq!(
        output,
        "[\n{\"id\":1,\"prices\":[79.90]},\n{\"id\":2,\"prices\":[5,6]}\n]\n"
    );
    assert_eq!(report[0]["reason"], "schema_violation");
    assert_eq!(
        (
            &report[0]["path"],
            &report[0]["record"],
            &report[0]["column"]
        ),
        (&json!("prices"), &json!(3), &json!(60))
    );
}

const TYPED: &str = r#"
switch = ".type"
max_rejected = "50%"

[cases.song]
jq = '.data + {kind: "song"} | {kind, artist_name, title, year, release, ingestion_time: ($source.last_modified | sub("T"; " ") | rtrimstr("Z"))}'
schema = { properties = { year = { type = "integer" } } }

[cases.movie]
fields = { t = "data/original_title", l = "data/original_language", budget = "data/budget", adult = "data/is_adult", date = "data/release_date" }
jq = '{kind: "movie", original_title: .t, original_title_normalized: (.t | ascii_downcase | gsub("[^a-z0-9]+"; "_")), original_language: .l, budget, is_adult: .adult, release_date: .date, ingestion_time: ($source.last_modified | sub("T"; " ") | rtrimstr("Z"))}'

[cases.app]
jq = '{kind: .type} + .data + {is_awesome: (.data.rating >= 4), ingestion_time: ($source.last_modified | sub("T"; " ") | rtrimstr("Z"))}'
"#;

fn typed(input: &str) -> (Value, Vec<Value>) {
    let plan = plan_within(Limits::default(), TYPED);
    let source = Source {
        last_modified: Some("2021-03-01T08:00:00Z".into()),
        ..Source::default()
    };
    let (mut output, mut report) = (Vec::new(), Vec::new());
    convert_reporting(
        &plan,
        &source,
        input.as_bytes(),
        &mut output,
        Some(&mut report),
    )
    .unwrap();
    let report = String::from_utf8(report).unwrap();
    let report = report
        .lines()
        .map(|line| serde_json::from_str(line).unwrap());
    (serde_json::from_slice(&output).unwrap(), report.collect())
}

#[test]
fn each_kind_of_entry_has_its_own_mapping_and_schema() {
    let input = r#"[
        {"type": "song", "data": {"artist_name": "K", "title": "H", "year": 2011, "release": "L"}},
        {"type": "movie", "data": {"original_title": "The Ferry: II", "original_language": "da", "budget": 1.50, "is_adult": false, "release_date": "2004-03-12"}},
        {"type": "song", "data": {"artist_name": "K", "title": "B", "year": "2011", "release": "L"}},
        {"type": "podcast", "data": {}},
        {"data": {}},
        {"type": "app", "data": {"name": "T", "rating": 4.5}}
    ]"#;
    let (output, report) = typed(input);
    assert_eq!(output.as_array().unwrap().len(), 3);
    assert_eq!(output[1]["original_title_normalized"], "the_ferry_ii");
    assert_eq!(output[1]["budget"].to_string(), "1.50");
    assert_eq!(output[2]["is_awesome"], true);
    let brief: Vec<_> = report
        .iter()
        .map(|line| {
            (
                line["record"].as_u64().unwrap(),
                line["reason"].as_str().unwrap(),
                line["path"].as_str().unwrap(),
            )
        })
        .collect();
    assert_eq!(
        brief,
        [
            (3, "schema_violation", "year"),
            (4, "unknown_type", "type"),
            (5, "unknown_type", "type")
        ]
    );
    assert_eq!(report[1]["excerpt"], "podcast");
    assert_eq!(report[1]["line"], 5);
}

#[test]
fn the_typed_sample_becomes_what_it_must_become() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/samples");
    let read = |name: &str| std::fs::read_to_string(folder.join(name));
    let (Ok(input), Ok(expected)) = (
        read("typed-objects.json"),
        read("typed-objects.expected.json"),
    ) else {
        return println!("left out: there are no samples");
    };
    let expected: Value = serde_json::from_str(&expected).unwrap();
    let (output, report) = typed(&input);
    assert_eq!(output, expected["output"]);
    let records = |lines: &[Value]| {
        lines
            .iter()
            .map(|line| line["record"].clone())
            .collect::<Vec<_>>()
    };
    assert_eq!(
        records(&report),
        records(expected["rejected"].as_array().unwrap())
    );
}

#[test]
fn cases_take_their_fields_from_records_of_xml_too() {
    let toml = r#"
        switch = "@kind"
        max_rejected = 2
        output = "lines"
        [cases.a.fields]
        name = { path = "name", required = true }
        sizes = { each = "size", fields = { n = "@n", unit = "unit" } }
        [cases.b]
    "#;
    let xml = "<r><x kind='a'><name lang='en'>N</name><size n='1'><unit>cm</unit></size><size n='2'/></x><x kind='b'><y/></x><x/><x kind='a'><name><z/></name></x></r>";
    let (output, report, _) = reported(toml, xml);
    assert_eq!(
        output,
        "{\"name\":\"N\",\"sizes\":[{\"n\":\"1\",\"unit\":\"cm\"},{\"n\":\"2\",\"unit\":null}]}\n{\"@kind\":\"b\",\"y\":\"\"}\n"
    );
    assert_eq!(report[0]["reason"], "unknown_type");
    assert_eq!(
        (&report[1]["reason"], &report[1]["path"]),
        (&json!("invalid_value"), &json!("name"))
    );
}

#[test]
fn what_does_not_go_together_is_said() {
    let error = |toml: &str| {
        Plan::compile(&toml::from_str(toml).unwrap(), Limits::default())
            .unwrap_err()
            .to_string()
    };
    assert!(error("switch = '.a'").contains("needs `cases`"));
    assert!(error("cases.a.jq = '.'").contains("needs `cases`"));
    assert!(
        error("switch = '.a'\njq = '.'\ncases.a.jq = '.'").contains("`jq` stands in the cases")
    );
    assert!(error("switch = '..a'\ncases.a.jq = '.'").contains("not a path"));
    assert!(error("switch = '.a'\ncases.b.jq = 'x'").contains("the case \"b\""));
}

fn output(toml: &str, input: &str) -> Vec<u8> {
    let mut output = Vec::new();
    let plan = plan_within(Limits::default(), toml);
    let summary = convert(&plan, &Source::default(), input.as_bytes(), &mut output).unwrap();
    assert_eq!(summary.output_bytes, output.len() as u64);
    output
}

#[test]
fn compressed_outputs_hold_the_same_and_are_the_same_each_time() {
    let plain = output("", ITEMS);
    let gzip = output("compress = 'gzip'", ITEMS);
    let mut unpacked = Vec::new();
    flate2::read::GzDecoder::new(&*gzip)
        .read_to_end(&mut unpacked)
        .unwrap();
    assert_eq!(unpacked, plain);
    // No name, no time, an unknown system.
    assert_eq!(gzip[3..10], [0, 0, 0, 0, 0, 0, 255]);
    let zstd = output("compress = 'zstd'", ITEMS);
    assert_eq!(zstd::decode_all(&*zstd).unwrap(), plain);
    assert_eq!(gzip, output("compress = 'gzip'", ITEMS));
    assert_eq!(zstd, output("compress = 'zstd'", ITEMS));
}

#[test]
fn an_indented_output_is_the_same_whatever_is_done_to_its_records() {
    let pretty = output("output = 'pretty'", ITEMS);
    let values: Value = serde_json::from_slice(&pretty).unwrap();
    assert_eq!(
        String::from_utf8(pretty.clone()).unwrap(),
        serde_json::to_string_pretty(&values).unwrap() + "\n"
    );
    assert_eq!(output("output = 'pretty'\njq = '.'", ITEMS), pretty);
    assert_eq!(output("output = 'pretty'\njq = 'empty'", ITEMS), b"[\n]\n");
}
