//! Real files, when the folder with them is there.

use std::fs;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use super::*;

fn sample(name: &str) -> Option<Vec<u8>> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../shared/samples")
        .join(name);
    let bytes = fs::read(&path).ok();
    if bytes.is_none() {
        println!("left out: there is no sample {name}");
    }
    bytes
}

fn feed_files() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/samples");
    let Ok(entries) = fs::read_dir(folder) else {
        println!("left out: there are no samples");
        return Vec::new();
    };
    let is_feed = |path: &PathBuf| {
        path.extension()
            .is_some_and(|extension| extension == "xml" || extension == "json")
    };
    entries
        .map(|entry| entry.unwrap().path())
        .filter(is_feed)
        .collect()
}

#[test]
fn the_nsx_sample_becomes_the_json_it_must_become() {
    let (Some(xml), Some(json)) = (sample("nsx-products.xml"), sample("nsx-products.json")) else {
        return;
    };
    let output: serde_json::Value = serde_json::from_str(&converted(NSX, xml)).unwrap();
    assert_eq!(
        output,
        serde_json::from_slice::<serde_json::Value>(&json).unwrap()
    );
}

#[test]
fn every_sample_is_converted_or_refused_by_name() {
    for path in feed_files() {
        for toml in [
            "",
            "record = 'rss/channel/item'",
            "fields = { a = 'a', b = { each = 'b' } }",
        ] {
            let result = run(
                &plan_within(Limits::default(), toml),
                &*fs::read(&path).unwrap(),
            );
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            match result {
                Ok(output) => assert!(
                    serde_json::from_str::<serde_json::Value>(&output).is_ok(),
                    "{name}"
                ),
                Err(rejection) if toml.starts_with("record") => {
                    assert_eq!(rejection.reason, Reason::NoRecords, "{name}");
                }
                Err(rejection) => panic!("{name}: {rejection:?}"),
            }
        }
    }
}

#[test]
fn feeds_in_utf_16_convert_like_their_twins_in_utf_8() {
    for (name, is_big) in [
        ("utf16be-nobom-rss.xml", true),
        ("utf16le-bom-rss.xml", false),
    ] {
        let Some(wide) = sample(name) else {
            return;
        };
        let units: Vec<u16> = wide
            .chunks(2)
            .map(|pair| match is_big {
                true => u16::from_be_bytes(pair.try_into().unwrap()),
                false => u16::from_le_bytes(pair.try_into().unwrap()),
            })
            .collect();
        let twin = String::from_utf16(&units).unwrap();
        let twin = twin.replace("encoding=\"utf-16\"", "encoding='utf-8'");
        let output = converted("record = 'rss'", &wide);
        assert_eq!(output, converted("record = 'rss'", twin), "{name}");
        assert_eq!(output, "[\n\"\\n\"\n]\n");
    }
}

#[test]
fn cdata_and_escaped_html_convert_identically() {
    let (Some(escaped), Some(cdata)) = (
        sample("onix30-ref-multiple.xml"),
        sample("derived-onix30-cdata-html.xml"),
    ) else {
        return;
    };
    let toml = "record = 'o:ONIXMessage/o:Product'\nnamespaces = { o = 'http://ns.editeur.org/onix/3.0/reference' }\n";
    let output = lines(toml, &escaped);
    assert_eq!(output.len(), 21);
    assert_eq!(output, lines(toml, &cdata));
    let text = "fields = { t = { each = 'o:CollateralDetail/o:TextContent', value = 'o:Text' } }";
    let texts = lines(&format!("{toml}{text}"), &escaped);
    assert_eq!(texts, lines(&format!("{toml}{text}"), &cdata));
    assert!(texts.iter().any(|text| text.contains("<p>")));
}

#[test]
fn a_google_feed_is_mapped_by_namespace() {
    let Some(xml) = sample("google-rss2-products.xml") else {
        return;
    };
    let toml = r#"
        record = "rss/channel/item"
        namespaces = { x = "http://base.google.com/ns/1.0" }
        [fields]
        title = "title"
        price = { path = "x:price", type = "decimal", required = true }
        labels = { each = "x:label" }
        shipping = { each = "x:shipping", fields = { country = "x:country", price = "x:price" } }
    "#;
    let first: serde_json::Value = serde_json::from_str(&lines(toml, xml)[0]).unwrap();
    assert_eq!(first["title"], "Google Mini");
    assert_eq!(first["price"].to_string(), "2995");
    assert_eq!(
        first["labels"],
        serde_json::json!(["web search", "appliance"])
    );
}

/// Counts the tags in the text: the samples have none of these in comments or CDATA.
fn tags(xml: &[u8], name: &str) -> usize {
    let xml = String::from_utf8_lossy(xml);
    let is_tag = |rest: &&str| rest.starts_with([' ', '>', '/', '\n', '\t']);
    xml.split(&format!("<{name}"))
        .skip(1)
        .filter(is_tag)
        .count()
}

#[test]
fn every_xml_sample_gives_as_many_whole_records_as_it_has_tags() {
    for (name, record) in [
        (
            "bmecat101-internal-dtd-udx.xml",
            "BMECAT/T_NEW_CATALOG/ARTICLE",
        ),
        ("bmecat12-new-catalog.xml", "BMECAT/T_NEW_CATALOG/ARTICLE"),
        ("bmecat2005-new-catalog.xml", "BMECAT/T_NEW_CATALOG/PRODUCT"),
        ("cdata-html-mixed-rss.xml", "rss/channel/item"),
        ("cdata-url-ampersand-rss.xml", "rss/channel/item"),
        (
            "cxml-punchout-order-cdata.xml",
            "cXML/Message/PunchOutOrderMessage/ItemIn",
        ),
        ("derived-onix30-cdata-html.xml", "ONIXMessage/Product"),
        ("google-atom-products.xml", "feed/entry"),
        ("google-rss2-products.xml", "rss/channel/item"),
        ("nsx-products.xml", "nsx:items/nsx:item"),
        ("onix30-ref-multiple.xml", "ONIXMessage/Product"),
        ("onix30-short-single.xml", "ONIXmessage/product"),
        ("opentrans21-order.xml", "ORDER/ORDER_ITEM_LIST/ORDER_ITEM"),
    ] {
        let Some(xml) = sample(name) else { return };
        let (_, tag) = record.rsplit_once('/').unwrap();
        let output = lines(&format!("record = '{record}'"), &xml);
        assert_eq!(output.len(), tags(&xml, tag), "{name}");
        let is_object = |line: &String| line.starts_with('{');
        assert!(!output.is_empty() && output.iter().all(is_object), "{name}");
        let fields = lines(
            &format!("record = '{record}'\nfields = {{ text = '.' }}"),
            &xml,
        );
        assert_eq!(fields.len(), output.len(), "{name}");
    }
}

#[test]
fn every_json_sample_comes_out_as_it_went_in() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/samples");
    for folder in ["", "bol", "ebay", "events"].map(|name| folder.join(name)) {
        let Ok(entries) = fs::read_dir(&folder) else {
            println!("left out: there is no {}", folder.display());
            continue;
        };
        for path in entries.map(|entry| entry.unwrap().path()) {
            let extension = path.extension().and_then(|extension| extension.to_str());
            if !matches!(extension, Some("json" | "jsonl")) {
                continue;
            }
            let json = fs::read(&path).unwrap();
            let values = serde_json::Deserializer::from_slice(&json).into_iter();
            let values: Vec<serde_json::Value> = values.map(Result::unwrap).collect();
            let records = match &values[..] {
                [serde_json::Value::Array(records)] => records.clone(),
                _ => values,
            };
            let records: Vec<_> = records.iter().map(ToString::to_string).collect();
            assert_eq!(lines("", &json), records, "{}", path.display());
        }
    }
}

#[test]
fn records_of_a_json_document_are_counted_right() {
    for (name, record, count) in [
        ("amazon-json-listings-feed-v2.json", "messages", 4),
        ("bol/shipments-list-200.json", "shipments", 2),
        ("ebay/item-summary-search-200.json", "itemSummaries", 1),
        ("events/aws-s3-put-v2.1.json", "Records/s3/object", 1),
    ] {
        let Some(json) = sample(name) else { return };
        let output = lines(&format!("record = '{record}'"), json);
        assert_eq!(output.len(), count, "{name}");
    }
}

#[test]
fn atom_entries_are_found_by_their_default_namespace() {
    let Some(xml) = sample("google-atom-products.xml") else {
        return;
    };
    let toml = r#"
        record = "a:feed/a:entry"
        namespaces = { a = "http://purl.org/atom/ns#", x = "http://base.google.com/ns/1.0" }
        fields = { title = "a:title", link = "a:link/@href", price = { path = "x:price", required = true } }
    "#;
    let output = lines(toml, &xml);
    assert_eq!(output.len(), 2);
    assert_eq!(
        output,
        lines(&toml.replace("\"x:", "\"g:").replace("a:", ""), &xml)
    );
}

/// Of samples the whole records were once compared, value by value, with what Python's expat makes of the same file.
#[test]
fn the_whole_records_of_every_xml_sample_stay_what_they_were_when_checked_against_expat() {
    for (name, record, digest) in [
        (
            "bmecat101-internal-dtd-udx.xml",
            "BMECAT/T_NEW_CATALOG/ARTICLE",
            "4dd6584cc5d74842",
        ),
        (
            "bmecat12-new-catalog.xml",
            "BMECAT/T_NEW_CATALOG/ARTICLE",
            "b053e9d6a15ff1f4",
        ),
        (
            "bmecat2005-new-catalog.xml",
            "BMECAT/T_NEW_CATALOG/PRODUCT",
            "1259783b9f1cbb6f",
        ),
        (
            "cdata-html-mixed-rss.xml",
            "rss/channel/item",
            "4a8654175cb9fba9",
        ),
        (
            "cdata-url-ampersand-rss.xml",
            "rss/channel/item",
            "42aaf661be19546a",
        ),
        (
            "cxml-punchout-order-cdata.xml",
            "cXML/Message/PunchOutOrderMessage/ItemIn",
            "3d8a61f1d8c5e63c",
        ),
        (
            "derived-onix30-cdata-html.xml",
            "ONIXMessage/Product",
            "f7ff1582585e58c6",
        ),
        ("google-atom-products.xml", "feed/entry", "4b7273259fb12b85"),
        (
            "google-rss2-products.xml",
            "rss/channel/item",
            "5914fe704ebfc37e",
        ),
        ("nsx-products.xml", "nsx:items/nsx:item", "1473b7bbd9e4b08e"),
        (
            "onix30-ref-multiple.xml",
            "ONIXMessage/Product",
            "f7ff1582585e58c6",
        ),
        (
            "onix30-short-single.xml",
            "ONIXmessage/product",
            "2a9d79b7befd6cb4",
        ),
        (
            "opentrans21-order.xml",
            "ORDER/ORDER_ITEM_LIST/ORDER_ITEM",
            "3a860911dc9b2c59",
        ),
        ("utf16be-nobom-rss.xml", "rss", "dd314e7de5d8b91b"),
        ("utf16le-bom-rss.xml", "rss", "dd314e7de5d8b91b"),
    ] {
        let Some(xml) = sample(name) else { return };
        let plan = plan_within(
            Limits::default(),
            &format!("record = '{record}'\noutput = 'lines'"),
        );
        let output = Sha256::digest(run(&plan, &*xml).unwrap());
        let hex: String = output[..8]
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect();
        assert_eq!(hex, digest, "{name}");
    }
}

#[test]
fn the_fields_of_other_formats_are_found_where_they_stand() {
    for (name, toml, first) in [
        (
            "bmecat2005-new-catalog.xml",
            r#"
                record = "b:BMECAT/b:T_NEW_CATALOG/b:PRODUCT"
                namespaces = { b = "http://www.bmecat.org/bmecat/2005" }
                [fields]
                id = "b:SUPPLIER_PID"
                gtin = "b:PRODUCT_DETAILS/b:INTERNATIONAL_PID"
                values = { each = "b:PRODUCT_FEATURES/b:FEATURE/b:FVALUE", join = "/" }
                prices = { each = "b:PRODUCT_PRICE_DETAILS/b:PRODUCT_PRICE", fields = { from = { path = "b:LOWER_BOUND", type = "integer" }, amount = { path = "b:PRICE_AMOUNT", type = "decimal" } } }
                dates = { each = "b:PRODUCT_PRICE_DETAILS/b:DATETIME", key = "{@type}", value = "b:DATE" }
            "#,
            r#"{"id":"1000","gtin":"8712670911213","values":"110/220","prices":[{"from":1,"amount":1499.5},{"from":100,"amount":1300.9}],"dates":{"valid_start_date":"2001-01-01","valid_end_date":"2001-07-31"}}"#,
        ),
        (
            "cxml-punchout-order-cdata.xml",
            r#"
                record = "cXML/Message/PunchOutOrderMessage/ItemIn"
                [fields]
                id = "ItemID/SupplierPartID"
                quantity = { path = "@quantity", type = "integer" }
                price = { path = "ItemDetail/UnitPrice/Money", type = "decimal" }
                currency = "ItemDetail/UnitPrice/Money/@currency"
                language = "ItemDetail/Description/@xml:lang"
            "#,
            r#"{"id":"5555","quantity":2,"price":104.99,"currency":"USD","language":"en"}"#,
        ),
        (
            "opentrans21-order.xml",
            r#"
                record = "o:ORDER/o:ORDER_ITEM_LIST/o:ORDER_ITEM"
                namespaces = { o = "http://www.opentrans.org/XMLSchema/2.1", b = "http://www.bmecat.org/bmecat/2005" }
                [fields]
                line = "o:LINE_ITEM_ID"
                ids = { each = "o:PRODUCT_ID/b:INTERNATIONAL_PID", key = "{@type}", value = "." }
                price = { path = "o:PRODUCT_PRICE_FIX/b:PRICE_AMOUNT", type = "decimal", required = true }
            "#,
            r#"{"line":"00001","ids":{"ean":"0190198870803","itscope":"6676919000"},"price":868.0}"#,
        ),
        (
            "onix30-short-single.xml",
            r#"
                record = "x:ONIXmessage/x:product"
                namespaces = { x = "http://ns.editeur.org/onix/3.0/short" }
                [fields]
                ids = { each = "x:productidentifier", key = "{x:b221}", value = "x:b244" }
                title = "x:descriptivedetail/x:titledetail/x:titleelement/x:b031"
                cased = "x:descriptivedetail/x:titledetail/x:titleelement/x:b031/@textcase"
                names = { each = "x:descriptivedetail/x:contributor", value = "x:b040" }
            "#,
            r#"{"ids":{"03":"9780007232833","15":"9780007232833"},"title":"Roseanna","cased":"01","names":["Sjöwall","Wahlöö","Roth","Mankell"]}"#,
        ),
    ] {
        let Some(xml) = sample(name) else { return };
        assert_eq!(lines(toml, xml)[0], first, "{name}");
    }
}
