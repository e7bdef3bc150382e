//! Files of names and values as they come: what is inferred converts them.

use proptest::prelude::*;

use super::*;

/// A tree of names and values, for each of the three formats.
#[derive(Clone, Debug)]
enum Made {
    Text(String),
    Inside(Vec<(String, Vec<Made>)>),
}

fn made() -> impl Strategy<Value = Made> {
    let text = prop_oneof![
        "[0-9]{1,4}",
        "[0-9]{1,3}\\.[0-9]{2}",
        "20[0-9]{2}-1[0-2]-[0-2][1-8]",
        "[0-2][1-8]/0[1-9]/20[0-9]{2}",
        "true|false",
        "\\PC{0,12}",
        " ?[a-z]{0,5} ?",
    ]
    .prop_map(Made::Text);
    text.prop_recursive(4, 64, 4, |inner| {
        let name = prop_oneof!["[a-d]", "[A-Z][a-z]{1,3}[A-Z]{2}", "item|name|value|id"];
        prop::collection::vec((name, prop::collection::vec(inner, 1..3)), 1..4)
            .prop_map(Made::Inside)
    })
}

/// What the records of a file are made of: names alike, values not.
fn file() -> impl Strategy<Value = Vec<Made>> {
    prop::collection::vec(made(), 2..8)
}

fn xml_of(name: &str, made: &Made, xml: &mut String) {
    xml.push_str(&format!("<{name}>"));
    match made {
        Made::Text(text) => xml.push_str(&quick_xml::escape::escape(text.as_str())),
        Made::Inside(children) => {
            for (name, values) in children {
                values.iter().for_each(|value| xml_of(name, value, xml));
            }
        }
    }
    xml.push_str(&format!("</{name}>"));
}

fn json_of(made: &Made) -> Value {
    match made {
        Made::Text(text) => text.as_str().into(),
        Made::Inside(children) => children
            .iter()
            .map(|(name, values)| match &values[..] {
                [value] => (name.clone(), json_of(value)),
                values => (name.clone(), values.iter().map(json_of).collect()),
            })
            .collect::<serde_json::Map<_, _>>()
            .into(),
    }
}

proptest! {
    #[test]
    fn any_xml_is_converted_by_what_is_inferred_from_it(records_made in file(), whole: bool) {
        let mut xml = String::from("<feed>");
        records_made.iter().for_each(|record| xml_of("product", record, &mut xml));
        xml.push_str("</feed>");
        let toml = survey(EVERYTHING, &[xml.as_bytes()]).unwrap().write(&target(whole));
        let (summary, values) = records(&toml, xml.as_bytes());
        prop_assert_eq!(summary.rejected, 0);
        prop_assert_eq!(summary.warnings, []);
        if record_path(&toml).as_deref() == Some("feed/product") {
            prop_assert_eq!(values.len(), records_made.len());
        }
    }

    #[test]
    fn any_json_is_converted_by_what_is_inferred_from_it(records_made in file(), is_lines: bool) {
        let values: Vec<_> = records_made.iter().map(json_of).collect();
        let text = match is_lines {
            true => values.iter().map(|value| format!("{value}\n")).collect(),
            false => Value::from(values.clone()).to_string(),
        };
        // A line that is no object begins like no format there is.
        let format = if is_lines { Format::JsonLines } else { Format::Auto };
        let options = Options { format, ..EVERYTHING };
        let toml = survey(options, &[text.as_bytes()]).unwrap().write(&target(false));
        let (summary, found) = records(&toml, text.as_bytes());
        prop_assert_eq!(summary.rejected, 0);
        if record_path(&toml).is_none() {
            prop_assert_eq!(found.len(), values.len());
        }
    }

    #[test]
    fn any_csv_is_converted_by_what_is_inferred_from_it(
        names in prop::collection::vec("\\PC{0,6}", 2..6),
        rows in prop::collection::vec(prop::collection::vec("\\PC{0,6}|[0-9]{1,3}", 6), 1..6),
    ) {
        let cell = |text: &str| format!("\"{}\"", text.replace('"', "\"\""));
        let line = |cells: &[String]| cells.iter().map(|text| cell(text)).collect::<Vec<_>>().join(";") + "\n";
        let lines: String = rows.iter().map(|row| line(&row[..names.len()])).collect();
        let csv = line(&names) + &lines;
        let options = Options { format: Format::Csv, ..EVERYTHING };
        let toml = survey(options, &[csv.as_bytes()]).unwrap().write(&target(false));
        let (summary, values) = records(&toml, csv.as_bytes());
        prop_assert_eq!((summary.rejected, values.len()), (0, rows.len()));
    }
}
