//! What `fields` can say, over XML and JSON.

use super::*;

/// The one record that `fields` makes of the content of an XML record.
fn xml(fields: &str, content: &str) -> String {
    let mut lines = lines(
        &format!("record = 'r/p'\n[fields]\n{fields}"),
        format!("<r>{content}</r>"),
    );
    assert_eq!(lines.len(), 1);
    lines.remove(0)
}

fn json(fields: &str, record: &str) -> String {
    lines(&format!("[fields]\n{fields}"), format!("[{record}]")).remove(0)
}

fn refused(fields: &str, content: &str) -> (Reason, Option<String>) {
    let rejection = rejected(
        &format!("record = 'r/p'\n[fields]\n{fields}"),
        format!("<r>{content}</r>"),
    );
    (rejection.reason, rejection.path)
}

#[test]
fn the_last_of_several_values_is_taken_where_that_is_said() {
    let fields = "first = 'a/t'\nlast = { path = 'a/t', take = 'last' }\nattribute = { path = 'a/@k', take = 'last' }";
    assert_eq!(
        xml(
            fields,
            "<p><a k='1'><t>one</t><t>two</t></a><a k='2'><t>three</t></a><a/></p>"
        ),
        r#"{"first":"one","last":"three","attribute":"2"}"#
    );
    assert_eq!(
        xml(fields, "<p/>"),
        r#"{"first":null,"last":null,"attribute":null}"#
    );
    assert_eq!(
        json(
            fields,
            r#"{"a":[{"t":["one",2],"@k":1},{"t":[3,null],"@k":null}]}"#
        ),
        r#"{"first":"one","last":3,"attribute":1}"#
    );
    let nested = "x = { each = 'a', fields = { last = { path = 't', take = 'last' } } }";
    assert_eq!(
        xml(nested, "<p><a><t>1</t><t>2</t></a><a><t>3</t></a></p>"),
        r#"{"x":[{"last":"2"},{"last":"3"}]}"#
    );
}

#[test]
fn several_values_are_joined_to_one_text() {
    let fields = r#"
        tags = { each = "t", join = ", " }
        trimmed = { each = "t", join = "\"", trim = true }
        attributes = { each = "t", value = "@k", join = "" }
        none = { each = "x", join = "," }
        default = { each = "x", join = ",", default = "-" }
    "#;
    assert_eq!(
        xml(fields, "<p><t k='1'>a</t><t> b</t><t k='3'/></p>"),
        r#"{"tags":"a,  b","trimmed":"a\"b","attributes":"13","none":null,"default":"-"}"#
    );
    assert_eq!(
        json(fields, r#"{"t":["a",2,null,true]}"#),
        r#"{"tags":"a, 2, true","trimmed":"a\"2\"true","attributes":null,"none":null,"default":"-"}"#
    );
    let required = "tags = { each = 'a/t', join = ', ', trim = true, required = true }";
    assert_eq!(
        refused(required, "<p><a><t> </t></a></p>"),
        (Reason::MissingField, Some("r/p/a/t".into()))
    );
}

#[test]
fn dates_are_read_in_their_forms_and_written_in_one() {
    let fields = r#"
        iso = { path = "d", type = "date" }
        day = { path = "d", type = "date", from = ["%d.%m.%Y", "%Y-%m-%dT%H:%M:%S%:z"], to = "%Y/%m/%d" }
        empty = { path = "e", type = "date", default = "2000-01-01" }
        all = { each = "d", type = "date", from = ["%d.%m.%Y", "%Y-%m-%dT%H:%M:%S%:z"] }
        epoch = { path = "s", type = "date", from = "%s", to = "%F" }
    "#;
    let iso = "2026-11-21T00:30:00+01:00";
    let expected = format!(
        r#"{{"iso":"{iso}","day":"2026/11/21","empty":"2000-01-01","all":["{iso}","2026-12-24"],"epoch":"2026-02-01"}}"#
    );
    assert_eq!(
        xml(
            fields,
            &format!("<p><d> {iso}\n</d><d>24.12.2026</d><e> </e><s>1769987106</s></p>")
        ),
        expected
    );
    assert_eq!(
        json(
            fields,
            &format!(r#"{{"d":["{iso}","24.12.2026"],"e":null,"s":1769987106}}"#)
        ),
        expected
    );
    for date in ["31.02.2026", "2026-11-21", "tomorrow", "21.11.2026 x"] {
        let fields = "day = { path = 'd', type = 'date', from = '%d.%m.%Y' }";
        assert_eq!(
            refused(fields, &format!("<p><d>{date}</d></p>")),
            (Reason::InvalidValue, Some("r/p/d".into())),
            "{date}"
        );
    }
}

#[test]
fn constants_and_what_is_known_of_the_source_are_values_too() {
    let fields = r#"
        version = { const = 2 }
        shop = { const = "A \"B\"" }
        live = { const = true }
        bucket = "$source.bucket"
        key = { path = "$source.key" }
        etag = { path = "$source.etag", type = "integer" }
        day = { path = "$source.last_modified", type = "date", to = "%Y-%m-%d" }
        tags = { each = "t", fields = { tag = ".", feed = "$source.feed", one = { const = 1.5 } } }
        keyed = { each = "t", key = "{$source.feed}-{.}", value = "$source.etag" }
    "#;
    let expected = r#"{"version":2,"shop":"A \"B\"","live":true,"bucket":"partner-files","key":"nsx/\"æ\".xml","etag":123,"day":"2026-11-21","tags":[{"tag":"a","feed":"nsx","one":1.5}],"keyed":{"nsx-a":"0123"}}"#;
    assert_eq!(xml(fields, "<p><t>a</t></p>"), expected);
    assert_eq!(json(fields, r#"{"t":["a"]}"#), expected);
}

#[test]
fn a_source_without_a_date_has_none() {
    let nobody = Source {
        last_modified: None,
        ..source()
    };
    let convert_with = |fields: &str| {
        let plan = plan_within(Limits::default(), &format!("[fields]\n{fields}"));
        let mut output = Vec::new();
        let result = convert(&plan, &nobody, &b"<r><p/></r>"[..], &mut output);
        result.map(|_| String::from_utf8(output).unwrap())
    };
    assert_eq!(
        convert_with("x = '$source.last_modified'").unwrap(),
        "[\n{\"x\":null}\n]\n"
    );
    let required = convert_with("x = { path = '$source.last_modified', required = true }");
    assert!(matches!(required, Err(ConvertError::Rejected(r)) if r.reason == Reason::MissingField));
}

/// Would take minutes if the work on a value grew with the record.
#[test]
fn a_record_of_many_values_takes_linear_time() {
    let count = 200_000;
    let fields = "tags = { each = 't', join = '' }";
    let members = vec![r#""va\"lue""#; count].join(",");
    assert_eq!(
        json(fields, &format!("{{\"t\":[{members}]}}")),
        format!("{{\"tags\":\"{}\"}}", r#"va\"lue"#.repeat(count))
    );
    let elements = "<t>va&quot;lue</t>".repeat(count);
    assert_eq!(
        xml(fields, &format!("<p>{elements}</p>")),
        format!("{{\"tags\":\"{}\"}}", r#"va\"lue"#.repeat(count))
    );
}

#[test]
fn json_arriving_byte_by_byte_gives_the_same_output() {
    struct Trickle<'a>(&'a [u8]);
    impl Read for Trickle<'_> {
        fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
            let end = buffer.len().min(1);
            self.0.read(&mut buffer[..end])
        }
    }
    let text =
        r#" [ {"a" : "æ\u00e6\ud83d\ude00😀" , "b": -1.50e+3, "c":[true , null]} , {"a":"\\"} ] "#;
    for toml in ["", "fields = { a = 'a', b = 'b', c = { each = 'c' } }"] {
        let plan = plan_within(Limits::default(), toml);
        let output = run(&plan, Trickle(text.as_bytes())).unwrap();
        assert_eq!(output, converted(toml, text));
        for cut in 1..text.trim_end().len() {
            let rejection = run(&plan, &text.as_bytes()[..cut]).unwrap_err();
            assert!(
                matches!(
                    rejection.reason,
                    Reason::MalformedJson | Reason::EmptyFile | Reason::InvalidEncoding
                ),
                "{cut}: {rejection:?}"
            );
        }
    }
}

#[test]
fn what_stands_before_a_damaged_place_is_refused_first_however_the_bytes_arrive() {
    struct Steps<'a>(&'a [u8], usize);
    impl Read for Steps<'_> {
        fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
            let end = buffer.len().min(self.1);
            self.0.read(&mut buffer[..end])
        }
    }
    let plan = plan_within(
        Limits::default(),
        "[fields]\nn = { path = 'n', type = 'integer' }",
    );
    let refusals = |input: &[u8]| {
        let refusal = |step| {
            let rejection = run(&plan, Steps(input, step)).unwrap_err();
            (rejection.reason, rejection.byte_offset, rejection.excerpt)
        };
        let refusals: std::collections::HashSet<_> = (1..80).map(refusal).collect();
        refusals.into_iter().collect::<Vec<_>>()
    };
    // The beginning of a file is looked at in one piece.
    let head = format!("<r><!--{}-->", " ".repeat(5_000));
    for padding in 50..80 {
        let wrong = format!("{head}<!--{}--><p><n>x</n></p><p>", " ".repeat(padding));
        let damaged = |text: &str| [text.as_bytes(), b"\xff</p></r>"].concat();
        let value = Some((head.len() + padding + 7) as u64);
        assert_eq!(
            refusals(&damaged(&wrong)),
            [(Reason::InvalidValue, value, Some("x".into()))]
        );
        let right = refusals(&damaged(&wrong.replace('x', "1")));
        let damage = Some(wrong.len() as u64);
        assert_eq!(
            right,
            [(Reason::InvalidEncoding, damage, Some("\u{fffd}</p".into()))]
        );
    }
}
