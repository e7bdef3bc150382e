//! Records that are left out, and files that have too many of them.

use serde_json::Value;

use super::*;

/// The output, the report, and the summary.
pub fn reported(toml: &str, input: &str) -> (String, Vec<Value>, Summary) {
    try_reported(toml, input).unwrap()
}

pub fn try_reported(
    toml: &str,
    input: &str,
) -> Result<(String, Vec<Value>, Summary), Box<Rejection>> {
    let plan = plan_within(Limits::default(), toml);
    let (mut output, mut report) = (Vec::new(), Vec::new());
    let source = Source::default();
    let converted = convert_reporting(
        &plan,
        &source,
        input.as_bytes(),
        &mut output,
        Some(&mut report),
    );
    match converted {
        Ok(summary) => {
            let report = String::from_utf8(report).unwrap();
            let lines = report
                .lines()
                .map(|line| serde_json::from_str(line).unwrap());
            Ok((String::from_utf8(output).unwrap(), lines.collect(), summary))
        }
        Err(ConvertError::Rejected(rejection)) => Err(rejection),
        Err(error) => panic!("{error:?}"),
    }
}

const XML: &str = "<items>\n<item id='1'><n>1</n></item>\n<item><n>2</n></item><item id='3'><n>x</n></item>\n<item id='4'/>\n</items>";
const FIELDS: &str =
    "fields = { id = { path = '@id', required = true }, n = { path = 'n', type = 'integer' } }";

#[test]
fn rejected_records_are_left_out_and_reported_with_their_places() {
    let toml = format!("max_rejected = 2\n{FIELDS}");
    let (output, report, summary) = reported(&toml, XML);
    assert_eq!(
        output,
        "[\n{\"id\":\"1\",\"n\":1},\n{\"id\":\"4\",\"n\":null}\n]\n"
    );
    assert_eq!((summary.records, summary.rejected), (2, 2));
    let brief: Vec<_> = report
        .iter()
        .map(|line| {
            (
                line["record"].as_u64().unwrap(),
                line["reason"].as_str().unwrap(),
                line["path"].as_str().unwrap(),
                line["line"].as_u64().unwrap(),
                line["column"].as_u64().unwrap(),
            )
        })
        .collect();
    assert_eq!(
        brief,
        [
            (2, "missing_field", "items/item/@id", 3, 1),
            (3, "invalid_value", "items/item/n", 3, 22)
        ]
    );
    assert_eq!(report[1]["byte_offset"], 58);
    assert_eq!(report[1]["excerpt"], "x");
    assert_eq!(summary.rejections.len(), 2);
    assert_eq!(summary.rejections[1].record, Some(3));
}

#[test]
fn the_first_and_the_last_record_may_be_the_rejected_ones() {
    let toml = "max_rejected = '100%'\nfields = { a = { path = 'a', required = true } }";
    let (output, ..) = reported(toml, "[{}, {\"a\": 1}, {}]");
    assert_eq!(output, "[\n{\"a\":1}\n]\n");
    let (output, _, summary) = reported(toml, "<r><i/><i/></r>");
    assert_eq!((output.as_str(), summary.rejected), ("[\n]\n", 2));
}

#[test]
fn with_none_allowed_the_first_rejection_refuses_the_file_as_it_is() {
    let first = try_reported(FIELDS, XML).unwrap_err();
    assert_eq!(first.reason, Reason::MissingField);
    assert_eq!((first.record, first.line), (Some(2), Some(3)));
    assert_eq!(first.rejected, []);
    assert_eq!(first, rejected(FIELDS, XML));
}

#[test]
fn one_too_many_refuses_the_file_at_the_place_of_the_first() {
    let refused = try_reported(&format!("max_rejected = 1\n{FIELDS}"), XML).unwrap_err();
    assert_eq!(refused.reason, Reason::TooManyRejections);
    assert_eq!(
        refused.message,
        "2 of 3 records so far are rejected, and at most 1 may be; the first: missing_field: a required value is missing or empty"
    );
    assert_eq!((refused.record, refused.line), (Some(2), Some(3)));
    assert_eq!(refused.rejected.len(), 2);
    let refused = try_reported(&format!("max_rejected = '49%'\n{FIELDS}"), XML).unwrap_err();
    assert!(refused.message.starts_with("2 of 4 records are rejected"));
    assert!(try_reported(&format!("max_rejected = '50%'\n{FIELDS}"), XML).is_ok());
}

#[test]
fn what_is_wrong_with_the_file_is_never_tolerated() {
    let toml = format!("max_rejected = '100%'\n{FIELDS}");
    let refused = try_reported(&toml, "<items><item/><item></items>").unwrap_err();
    assert_eq!(refused.reason, Reason::MalformedXml);
    let refused = try_reported(&toml, "[{}, {\"n\": {\"x\": }}]").unwrap_err();
    assert_eq!(
        (refused.reason, refused.record),
        (Reason::MalformedJson, Some(2))
    );
}

#[test]
fn a_rejected_record_of_json_is_read_to_its_end() {
    let toml = format!("max_rejected = 9\nrecord = 'a/b'\n{FIELDS}");
    let json = r#"{"a": {"b": [{"@id": 1, "n": {"x": [1, "]"]}, "z": 1}, 7, {"@id": 2, "n": 5}, null, {"n": {}}]}}"#;
    let (output, report, _) = reported(&toml, json);
    assert_eq!(output, "[\n{\"id\":2,\"n\":5}\n]\n");
    let brief: Vec<_> = report
        .iter()
        .map(|line| {
            (
                line["record"].as_u64().unwrap(),
                line["path"].as_str().unwrap(),
            )
        })
        .collect();
    assert_eq!(brief, [(1, "a/b/n"), (2, "a/b"), (4, "a/b"), (5, "a/b/n")]);
    assert!(
        report[0]["excerpt"]
            .as_str()
            .unwrap()
            .starts_with(r#"{"x":"#)
    );
    let lines = "{\"n\":{}}\n7\n{\"@id\":3}\n";
    let (output, report, _) = reported(
        &format!("output = 'lines'\nmax_rejected = 2\n{FIELDS}"),
        lines,
    );
    assert_eq!(output, "{\"id\":3,\"n\":null}\n");
    assert_eq!(report[1]["line"], 2);
}

#[test]
fn only_the_first_rejections_are_kept_and_all_are_reported() {
    let toml = format!("max_rejected = 1000\n{FIELDS}");
    let (_, report, summary) = reported(&toml, &"{}\n".repeat(100));
    assert_eq!((report.len(), summary.rejected), (100, 100));
    assert_eq!(summary.rejections.len(), FIRST_REJECTIONS);
}
