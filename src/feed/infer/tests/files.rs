//! Whole files: the fixtures with the text that is inferred from them, and real ones when the folder with them is there.

use std::fs;
use std::path::{Path, PathBuf};

use super::*;

fn samples() -> Option<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/samples");
    if !folder.is_dir() {
        println!("left out: there are no samples");
        return None;
    }
    Some(folder)
}

#[test]
fn every_sample_is_converted_by_what_is_inferred_from_it() {
    let Some(folder) = samples() else { return };
    for (name, record, count) in [
        ("amazon-json-listings-feed-v2.json", "messages", 4),
        (
            "bmecat101-internal-dtd-udx.xml",
            "BMECAT/T_NEW_CATALOG/ARTICLE",
            2,
        ),
        (
            "bmecat12-new-catalog.xml",
            "ns:BMECAT/ns:T_NEW_CATALOG/ns:ARTICLE",
            1,
        ),
        (
            "bmecat2005-new-catalog.xml",
            "ns:BMECAT/ns:T_NEW_CATALOG/ns:PRODUCT",
            1,
        ),
        ("bol/shipment-200.json", "", 1),
        ("bol/shipments-list-200.json", "shipments", 2),
        ("cdata-html-mixed-rss.xml", "rss/channel/item", 4),
        ("cdata-url-ampersand-rss.xml", "rss/channel/item", 2),
        (
            "cxml-punchout-order-cdata.xml",
            "cXML/Message/PunchOutOrderMessage/ItemIn",
            1,
        ),
        (
            "derived-onix30-cdata-html.xml",
            "ns:ONIXMessage/ns:Product",
            21,
        ),
        ("ebay/error-400-offset.json", "errors", 1),
        ("ebay/item-summary-search-200.json", "itemSummaries", 1),
        ("ebay/token-200.json", "", 1),
        ("events/aws-s3-put-v2.1.json", "Records", 1),
        ("events/seaweedfs-filer-webhook.jsonl", "", 4),
        ("google-atom-products.xml", "ns:feed/ns:entry", 2),
        ("google-rss2-products.xml", "rss/channel/item", 2),
        ("nsx-products.xml", "nsx:items/nsx:item", 2),
        ("onix30-ref-multiple.xml", "ns:ONIXMessage/ns:Product", 21),
        ("onix30-short-single.xml", "ns:ONIXmessage/ns:product", 1),
        (
            "opentrans21-order.xml",
            "ns:ORDER/ns:ORDER_ITEM_LIST/ns:ORDER_ITEM",
            3,
        ),
        ("typed-objects.json", "", 6),
        ("utf16be-nobom-rss.xml", "rss", 1),
        ("utf16le-bom-rss.xml", "rss", 1),
    ] {
        let sample = fs::read(folder.join(name)).unwrap();
        for whole in [false, true] {
            let toml = survey(EVERYTHING, &[&sample])
                .unwrap()
                .write(&target(whole));
            assert_eq!(
                record_path(&toml).unwrap_or_default(),
                record,
                "{name}\n{toml}"
            );
            let (summary, values) = records(&toml, &sample);
            assert_eq!(
                (summary.records, summary.rejected),
                (count, 0),
                "{name}\n{toml}"
            );
            assert_eq!(summary.warnings, [], "{name}\n{toml}");
            assert_eq!(values.len() as u64, count, "{name}");
        }
    }
}

#[test]
fn no_value_of_a_sample_is_lost() {
    let Some(folder) = samples() else { return };
    for name in [
        "bmecat101-internal-dtd-udx.xml",
        "google-atom-products.xml",
        "google-rss2-products.xml",
        "nsx-products.xml",
        "onix30-ref-multiple.xml",
        "opentrans21-order.xml",
        "amazon-json-listings-feed-v2.json",
        "bol/shipments-list-200.json",
        "typed-objects.json",
    ] {
        let sample = fs::read(folder.join(name)).unwrap();
        let texts = |whole| {
            let toml = survey(EVERYTHING, &[&sample])
                .unwrap()
                .write(&target(whole));
            let mut texts = Vec::new();
            for record in records(&toml, &sample).1 {
                leaves(&record, &mut texts);
            }
            texts.sort();
            texts
        };
        let (of_fields, of_whole) = (texts(false), texts(true));
        let differing = of_fields.iter().zip(&of_whole).find(|(a, b)| a != b);
        assert_eq!(
            (of_fields.len(), differing),
            (of_whole.len(), None),
            "{name}"
        );
    }
}

/// The letters and digits of the values in a record, dates being written otherwise; declarations of namespaces left out.
fn leaves(value: &Value, texts: &mut Vec<String>) {
    match value {
        Value::Null => {}
        Value::Array(values) => values.iter().for_each(|value| leaves(value, texts)),
        Value::Object(keys) => {
            let shown = keys.iter().filter(|(key, _)| !key.starts_with("@xmlns"));
            shown.for_each(|(_, value)| leaves(value, texts));
        }
        value => {
            let text = value.to_string();
            let letters: String = text.chars().filter(|c| c.is_alphanumeric()).collect();
            texts.extend((!letters.is_empty()).then_some(letters));
        }
    }
}

#[test]
fn the_fixtures_give_the_text_and_the_records_that_stand_beside_them() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/infer");
    for (name, whole) in [
        ("acme.xml", false),
        ("acme.xml", true),
        ("artikel.csv", false),
        ("orders.json", false),
    ] {
        let sample = fs::read(folder.join(name)).unwrap();
        let mut survey = Survey::new(EVERYTHING, Limits::default()).unwrap();
        survey.read(name, &*sample).unwrap();
        let toml = survey.write(&target(whole));
        let stem = match whole {
            true => format!("{name}.whole"),
            false => name.to_owned(),
        };
        let output = records(&toml, &sample).1;
        let output = serde_json::to_string_pretty(&output).unwrap() + "\n";
        for (text, ending) in [(&toml, "toml"), (&output, "expected.json")] {
            let path = folder.join(format!("{stem}.{ending}"));
            // To write them anew; then look at what changed.
            if std::env::var_os("FEEDMILL_WRITE_FIXTURES").is_some() {
                fs::write(&path, text).unwrap();
            }
            assert_eq!(
                text,
                &fs::read_to_string(&path).unwrap(),
                "{}",
                path.display()
            );
        }
    }
}
