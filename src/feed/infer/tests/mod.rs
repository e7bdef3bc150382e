//! From samples to a feed, and from that feed back to the samples: what is inferred converts them.

mod files;
mod generated;
mod reading;

use serde_json::{Value, json};

use super::*;
use crate::feed::spec::{FieldSpec, Fields, RecordPath};
use crate::feed::{Source, Summary, convert};

const EVERYTHING: Options = Options {
    format: Format::Auto,
    encoding: None,
    records: 10_000,
};

fn survey(options: Options, samples: &[&[u8]]) -> Result<Survey, InferError> {
    let mut survey = Survey::new(options, Limits::default()).unwrap();
    for (index, sample) in samples.iter().enumerate() {
        survey.read(&format!("sample-{index}"), *sample)?;
    }
    Ok(survey)
}

fn target(whole: bool) -> Target {
    Target {
        name: None,
        r#match: None,
        whole,
    }
}

fn inferred(samples: &[&[u8]]) -> String {
    survey(EVERYTHING, samples).unwrap().write(&target(false))
}

/// What stands in the only feed of a configuration, as the engine knows it.
fn spec(toml: &str) -> Spec {
    let mut table: ::toml::Table =
        ::toml::from_str(toml).unwrap_or_else(|error| panic!("{error}\n{toml}"));
    let mut feeds = table.remove("feeds").unwrap();
    let feed = feeds.as_array_mut().unwrap().remove(0);
    let ::toml::Value::Table(mut feed) = feed else {
        panic!("{toml}")
    };
    for key in ["name", "match"] {
        assert!(feed.remove(key).is_some(), "{key} is not in {toml}");
    }
    assert!(table.is_empty(), "{toml}");
    feed.try_into()
        .unwrap_or_else(|error| panic!("{error}\n{toml}"))
}

fn records(toml: &str, sample: &[u8]) -> (Summary, Vec<Value>) {
    let plan = Plan::compile(&spec(toml), Limits::default())
        .unwrap_or_else(|error| panic!("{error}\n{toml}"));
    let mut output = Vec::new();
    let summary = convert(&plan, &Source::default(), sample, &mut output)
        .unwrap_or_else(|error| panic!("{error:?}\n{toml}"));
    (summary, serde_json::from_slice(&output).unwrap())
}

/// The records that the inferred feed makes of the one sample it was inferred from.
fn converted(sample: impl AsRef<[u8]>) -> Vec<Value> {
    let sample = sample.as_ref();
    records(&inferred(&[sample]), sample).1
}

fn record_path(toml: &str) -> Option<String> {
    match spec(toml).record? {
        RecordPath::One(path) => Some(path),
        RecordPath::Several(paths) => panic!("{paths:?}"),
    }
}

fn fields(toml: &str) -> Fields {
    spec(toml)
        .fields
        .unwrap_or_else(|| panic!("no fields in {toml}"))
}

#[test]
fn records_are_the_list_that_holds_the_most() {
    let offers = "<offer id='1'><name>a</name><url>https://a.example/1</url></offer>".repeat(9);
    let categories = "<category id='1'>Garden</category>".repeat(12);
    let yml = format!(
        "<yml_catalog><shop><categories>{categories}</categories><offers>{offers}</offers></shop></yml_catalog>"
    );
    let toml = inferred(&[yml.as_bytes()]);
    assert_eq!(
        record_path(&toml).as_deref(),
        Some("yml_catalog/shop/offers/offer")
    );
    assert!(
        !toml.contains("Other lists"),
        "a list of single values is none: {toml}"
    );

    let categories = "<category id='1'><name>Garden</name></category>".repeat(12);
    let yml = format!(
        "<yml_catalog><shop><categories>{categories}</categories><offers>{offers}</offers></shop></yml_catalog>"
    );
    let toml = inferred(&[yml.as_bytes()]);
    assert_eq!(
        record_path(&toml).as_deref(),
        Some("yml_catalog/shop/offers/offer")
    );
    assert!(
        toml.contains(
            "# Other lists that could be the records: yml_catalog/shop/categories/category (12).\n"
        ),
        "{toml}"
    );
}

#[test]
fn a_usual_name_makes_up_for_fewer_bytes() {
    let logs = "<log><text>imported again</text></log>".repeat(20);
    let items = "<item><id>1</id></item>".repeat(20);
    let xml = format!("<r><logs>{logs}</logs><items>{items}</items></r>");
    let toml = inferred(&[xml.as_bytes()]);
    assert_eq!(record_path(&toml).as_deref(), Some("r/items/item"));
    let toml = inferred(&[xml.replace("item", "thing").as_bytes()]);
    assert_eq!(record_path(&toml).as_deref(), Some("r/logs/log"));
}

#[test]
fn groups_around_the_records_are_not_the_records() {
    let products = "<product><name>a</name><price>1</price></product>".repeat(20);
    let group = format!("<category name='x'>{products}</category>");
    let toml = inferred(&[format!("<shop>{group}{group}</shop>").as_bytes()]);
    assert_eq!(record_path(&toml).as_deref(), Some("shop/category/product"));
    // Orders have items, and are the records all the same.
    let order = "<order><id>1</id><item><n>1</n></item><item><n>2</n></item></order>".repeat(5);
    let toml = inferred(&[format!("<orders>{order}</orders>").as_bytes()]);
    assert_eq!(record_path(&toml).as_deref(), Some("orders/order"));
}

#[test]
fn one_product_in_a_file_is_one_record() {
    let xml = "<catalog><date>2026-11-21</date><product><id>1</id><image>a</image><image>b</image><image>c</image></product></catalog>";
    assert_eq!(
        converted(xml),
        [json!({"id": "1", "image": ["a", "b", "c"]})]
    );
    let json =
        br#"{"id": 1, "sizes": [{"n": "S"}], "seller": {"name": "Acme", "town": {"zip": "0123"}}}"#;
    assert_eq!(
        converted(json),
        [json!({"id": 1, "sizes": [{"n": "S"}], "seller_name": "Acme", "town_zip": "0123"})]
    );
    let xml = "<settings><a>1</a><b>2</b></settings>";
    assert_eq!(converted(xml), [json!({"a": "1", "b": "2"})]);
}

#[test]
fn records_that_are_no_objects_are_converted_whole() {
    for text in ["[1, 2]", r#"[{"a": 1}, "b"]"#, r#"["a", null]"#] {
        let toml = inferred(&[text.as_bytes()]);
        assert_eq!(spec(&toml).fields, None, "{toml}");
        assert!(toml.contains("Not all records are objects"), "{toml}");
        assert_eq!(records(&toml, text.as_bytes()).1.len(), 2);
    }
}

#[test]
fn what_json_has_and_no_path_can_ask_for_is_told() {
    let text = r##"[{"a/b": 1, "": 2, "c": {}, "d": [], "e": [1, {"f": 2}], "g": {"h": 1}, "@id": 7, "*": 1},
                   {"g": "x", "$source": 1, "#text": "t"}]"##;
    let toml = inferred(&[text.as_bytes()]);
    for left_out in [
        "a/b: no path",
        "c: always an empty object",
        "d: always an empty list",
        "e: a single value in a list",
        "g: a single value where an object",
        "*: no path",
        "$source: no path",
        ": no path",
    ] {
        assert!(
            toml.contains(&format!("# Left out: {left_out}")),
            "{left_out} in {toml}"
        );
    }
    assert_eq!(
        records(&toml, text.as_bytes()).1[0],
        json!({"e": [{"f": null}, {"f": 2}], "g_h": 1, "id": 7, "text": null})
    );
}

#[test]
fn a_key_on_the_way_that_no_path_can_name_is_any_name() {
    let text = br#"{"a/b": {"@c": [{"d": 1}, {"d": 2}]}}"#;
    let toml = inferred(&[text]);
    assert_eq!(record_path(&toml).as_deref(), Some("*/*"));
    assert_eq!(records(&toml, text).1, [json!({"d": 1}), json!({"d": 2})]);
}

#[test]
fn a_table_of_keys_is_taken_for_a_list() {
    let entries: Vec<_> = (0..600)
        .map(|n| format!("\"p{n}\": {{\"name\": \"n{n}\", \"stock\": {n}}}"))
        .collect();
    let text = format!(
        "{{\"updated\": \"today\", \"products\": {{{}}}}}",
        entries.join(",")
    );
    let toml = inferred(&[text.as_bytes()]);
    assert_eq!(record_path(&toml).as_deref(), Some("products/*"));
    let (_, values) = records(&toml, text.as_bytes());
    assert_eq!(values.len(), 600);
    assert_eq!(values[599], json!({"name": "n599", "stock": 599}));
}

#[test]
fn namespaces_are_bound_and_other_prefixes_stay_as_they_are() {
    let file = |f: &str, g: &str| {
        let item = format!("<item><{g}:id>1</{g}:id><n:x>2</n:x><title>t</title></item>").repeat(3);
        format!(
            "<{f}:rss xmlns:{f}='urn:f' xmlns:{g}='urn:g' xmlns:unused='urn:u'><c xmlns='urn:d'>{item}</c></{f}:rss>"
        )
    };
    let xml = file("f", "g");
    let toml = inferred(&[xml.as_bytes()]);
    let spec = spec(&toml);
    assert_eq!(record_path(&toml).as_deref(), Some("f:rss/ns:c/ns:item"));
    let bound: Vec<_> = spec
        .namespaces
        .iter()
        .map(|(prefix, uri)| (prefix.as_str(), uri.as_str()))
        .collect();
    assert_eq!(bound, [("f", "urn:f"), ("g", "urn:g"), ("ns", "urn:d")]);
    // Another file of that partner, with prefixes of its own.
    let twin = file("ff", "gg");
    assert_eq!(
        records(&toml, twin.as_bytes()).1,
        records(&toml, xml.as_bytes()).1
    );
    assert_eq!(
        records(&toml, xml.as_bytes()).1[0],
        json!({"id": "1", "x": 2, "title": "t"})
    );
}

#[test]
fn namespaces_that_vary_without_reason_are_not_bound() {
    let file = |namespace: &str| {
        format!("<shop {namespace}><item><g:id>a</g:id></item><item><g:id>b</g:id></item></shop>")
            .into_bytes()
    };
    let files = [
        file("xmlns='urn:a' xmlns:g='http://g.example'"),
        file("xmlns:g='https://g.example'"),
        file(""),
    ];
    let toml = inferred(&[&files[0], &files[1], &files[2]]);
    assert!(toml.contains("as they are written"), "{toml}");
    for file in &files {
        assert_eq!(
            records(&toml, file).1,
            [json!({"id": "a"}), json!({"id": "b"})],
            "{toml}"
        );
    }
}

#[test]
fn a_repeated_element_is_a_list_and_a_single_one_is_flat() {
    let xml = "<items>
        <item id='a'><label>x</label><label>y</label><seller><name>n</name></seller><name>m</name>
          <images><image type='1' url='u'/></images><price currency='EUR'>7.50</price><empty/></item>
        <item id='b'><images><image type='2' url='v'>alt</image><image url='w'/></images></item>
    </items>";
    assert_eq!(
        converted(xml),
        [
            json!({"id": "a", "label": ["x", "y"], "seller_name": "n", "name": "m",
                   "images": [{"value": "", "type": "1", "url": "u"}], "price": "7.50", "price_currency": "EUR", "empty": ""}),
            json!({"id": "b", "label": [], "seller_name": null, "name": null,
                   "images": [{"value": "alt", "type": "2", "url": "v"}, {"value": "", "type": null, "url": "w"}],
                   "price": null, "price_currency": null, "empty": null}),
        ]
    );
}

#[test]
fn names_are_unique_however_deep_their_elements_are() {
    let item = "<item><a><b><name>1</name></b></a><c><b><name>2</name></b></c><b_name>3</b_name><b-name>4</b-name></item>";
    let xml = format!("<r>{item}{item}</r>");
    let record = &converted(xml)[0];
    assert_eq!(
        record,
        &json!({"a_b_name": "1", "c_b_name": "2", "b_name": "3", "b_name_2": "4"})
    );
}

#[test]
fn mixed_content_gives_its_text() {
    let xml =
        "<r><item><d lang='en'>a <b>bold</b> word<br/></d></item><item><d>plain</d></item></r>";
    assert_eq!(
        converted(xml),
        [
            json!({"d": "a bold word", "d_lang": "en"}),
            json!({"d": "plain", "d_lang": null})
        ]
    );
}

#[test]
fn the_key_of_the_records_is_required_when_there_are_enough_of_them() {
    let csv = |rows: usize, key: fn(usize) -> usize| {
        let rows: String = (0..rows)
            .map(|row| format!("{},{row},x\n", key(row)))
            .collect();
        format!("sku,stock,brand\n{rows}")
    };
    let required = |csv: &str| {
        let fields = fields(&inferred(&[csv.as_bytes()]));
        let is_required =
            |field: &FieldSpec| matches!(field, FieldSpec::Value(value) if value.required);
        let required = fields.into_iter().filter(|(_, field)| is_required(field));
        required.map(|(name, _)| name).collect::<Vec<_>>()
    };
    assert_eq!(required(&csv(20, |row| row)), ["sku"]);
    assert!(required(&csv(19, |row| row)).is_empty(), "too few");
    assert!(required(&csv(20, |row| row / 2)).is_empty(), "not a key");
    let gap = csv(20, |row| row).replace("\n7,", "\n,");
    assert!(required(&gap).is_empty(), "missing in one");
}

#[test]
fn whole_records_have_the_arrays_that_were_seen() {
    let xml = "<r xmlns='urn:r'><item><price>1</price><image/><image/><tiers><price>2</price><price>3</price></tiers></item><item/></r>";
    let toml = survey(EVERYTHING, &[xml.as_bytes()])
        .unwrap()
        .write(&target(true));
    let spec = spec(&toml);
    assert_eq!(spec.arrays, ["ns:image", "ns:tiers/ns:price"]);
    assert_eq!(spec.fields, None);
    let (summary, values) = records(&toml, xml.as_bytes());
    assert_eq!(summary.warnings, []);
    assert_eq!(values[0]["price"], "1");
}

#[test]
fn what_is_alone_in_its_plural_is_a_list() {
    let item = "<item><images><image>a</image></images><prices><net>1</net></prices></item>";
    let record = &converted(format!("<r>{item}{item}</r>"))[0];
    assert_eq!(record, &json!({"images": ["a"], "prices_net": "1"}));
}
