//! The engine as its callers see it: a configuration and bytes in, JSON or a rejection out.

mod containers;
mod csv;
mod encodings;
mod fields;
mod hostile;
mod json;
mod limits;
pub mod packing;
mod properties;
mod records;
mod rejected;
mod samples;
mod steps;
mod trees;
mod wrapped;
mod xml;

use super::*;

pub const NSX: &str = r#"
record = "nsx:items/nsx:item"

[fields]
product_id          = "@id"
product_category    = "nsx:category"
product_description = "nsx:description"
product_images      = { each = "nsx:images/nsx:image", key = "image_{@type}", value = "@url", fill_gaps = true }
prices              = { each = "nsx:prices/nsx:price", fields = { currency = "nsx:currency", value = "nsx:value" } }
"#;

/// What every file of these tests comes from.
pub fn source() -> Source {
    Source {
        bucket: "partner-files".into(),
        key: "nsx/\"æ\".xml".into(),
        etag: "0123".into(),
        last_modified: Some("2026-11-21T10:00:00Z".into()),
        feed: "nsx".into(),
    }
}

pub fn plan_within(limits: Limits, toml: &str) -> Plan {
    Plan::compile(&toml::from_str(toml).unwrap(), limits).unwrap()
}

pub fn run(plan: &Plan, input: impl Read) -> Result<String, Box<Rejection>> {
    let mut output = Vec::new();
    match convert(plan, &source(), input, &mut output) {
        Ok(summary) => {
            assert_eq!(summary.output_bytes, output.len() as u64);
            Ok(String::from_utf8(output).unwrap())
        }
        Err(ConvertError::Rejected(rejection)) => Err(rejection),
        Err(error) => panic!("neither converted nor rejected: {error:?}"),
    }
}

/// Converts `input`; the output must be JSON.
pub fn converted(toml: &str, input: impl AsRef<[u8]>) -> String {
    let output = run(&plan_within(Limits::default(), toml), input.as_ref()).unwrap();
    assert!(
        serde_json::from_str::<serde_json::Value>(&output).is_ok(),
        "{output}"
    );
    output
}

/// The records of an array, one per line, without its brackets.
pub fn lines(toml: &str, input: impl AsRef<[u8]>) -> Vec<String> {
    let output = converted(toml, input);
    let inside = output
        .strip_prefix("[\n")
        .unwrap()
        .strip_suffix("]\n")
        .unwrap();
    inside
        .lines()
        .map(|line| line.trim_end_matches(',').to_owned())
        .collect()
}

/// What is odd about `input`, which is converted.
pub fn warnings(toml: &str, input: impl AsRef<[u8]>) -> Vec<String> {
    let plan = plan_within(Limits::default(), toml);
    let summary = convert(&plan, &Source::default(), input.as_ref(), std::io::sink()).unwrap();
    summary.warnings.iter().map(Warning::to_string).collect()
}

pub fn rejected(toml: &str, input: impl AsRef<[u8]>) -> Box<Rejection> {
    rejected_within(Limits::default(), toml, input.as_ref())
}

pub fn rejected_within(limits: Limits, toml: &str, input: impl Read) -> Box<Rejection> {
    run(&plan_within(limits, toml), input).unwrap_err()
}
