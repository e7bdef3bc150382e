//! Where the records are: several paths, names by namespace, and what is said about a file that is converted all the same.

use super::*;

const SHOP: &str = "<yml_catalog><shop>
    <categories><category id='1'>Lamps</category><category id='2'/></categories>
    <name>Shop</name><extra><offer/></extra>
    <offers><offer id='7'><name>Moon</name></offer></offers>
    <categories><category id='3'/></categories>
</shop></yml_catalog>";

#[test]
fn several_record_paths_give_their_records_in_the_order_of_the_document() {
    let toml = "record = ['yml_catalog/shop/offers/offer', 'yml_catalog/shop/categories/category']";
    assert_eq!(
        lines(toml, SHOP),
        [
            r##"{"@id":"1","#text":"Lamps"}"##,
            r#"{"@id":"2"}"#,
            r#"{"@id":"7","name":"Moon"}"#,
            r#"{"@id":"3"}"#
        ]
    );
    let fields = "fields = { id = '@id', name = 'name', text = '.' }";
    assert_eq!(
        lines(&format!("{toml}\n{fields}"), SHOP)[..3],
        [
            r#"{"id":"1","name":null,"text":"Lamps"}"#,
            r#"{"id":"2","name":null,"text":""}"#,
            r#"{"id":"7","name":"Moon","text":"Moon"}"#
        ]
    );
    let different_depths = "record = ['yml_catalog/shop/name', 'yml_catalog/shop/extra/offer']";
    assert_eq!(lines(different_depths, SHOP), [r#""Shop""#, r#""""#]);
    let one = "record = ['yml_catalog/shop/name']";
    assert_eq!(lines(one, SHOP), [r#""Shop""#]);
}

#[test]
fn the_end_of_one_path_is_not_found_at_the_beginning_of_another() {
    let toml = "record = ['r/a/c', 'r/x/d']";
    let xml = "<r><a><c>1</c><d>no</d></a><x><c>no</c><d>2</d></x><y><c>no</c></y></r>";
    assert_eq!(lines(toml, xml), [r#""1""#, r#""2""#]);
    let json = r#"{"r": {"a": {"c": 1, "d": "no"}, "x": {"c": "no", "d": 2}, "y": {"c": "no"}}}"#;
    assert_eq!(lines(toml, json), ["1", "2"]);
}

#[test]
fn any_name_can_stand_on_the_way() {
    assert_eq!(
        lines("record = '*/shop/*/offer'", SHOP),
        [r#""""#, r#"{"@id":"7","name":"Moon"}"#]
    );
    let json = r#"{"data": {"a": {"products": [1, 2]}, "b": {"other": [3]}, "c": {"products": 4}}, "products": [5]}"#;
    assert_eq!(lines("record = 'data/*/products'", json), ["1", "2", "4"]);
    assert_eq!(
        lines(
            "record = 'items/*'",
            r#"{"items": {"k": {"n": 1}, "l": [2]}}"#
        ),
        [r#"{"n":1}"#, "2"]
    );
}

#[test]
fn several_record_paths_lead_through_json_too() {
    let json = r#"{"new": [{"id": 1}], "skip": [0], "old": {"items": [{"id": 2}, {"id": 3}]}, "last": {"id": 4}}"#;
    let toml = "record = ['old/items', 'last', 'new']";
    assert_eq!(
        lines(toml, json),
        [r#"{"id":1}"#, r#"{"id":2}"#, r#"{"id":3}"#, r#"{"id":4}"#]
    );
    let wrong = rejected(
        "record = ['old/items', 'new']\nfields = { id = { path = 'id', type = 'boolean' } }",
        json.replace("\"id\": 2", "\"id\": \"x\""),
    );
    // The first record has id 1, which is a boolean.
    assert_eq!(
        (wrong.record, wrong.path.as_deref()),
        (Some(2), Some("old/items/id"))
    );
}

#[test]
fn a_path_that_leads_nowhere_is_a_warning_beside_others_and_a_rejection_alone() {
    let toml = "record = ['yml_catalog/shop/name', 'yml_catalog/shop/offer']";
    assert_eq!(
        warnings(toml, SHOP),
        ["nothing is on the record path `yml_catalog/shop/offer`"]
    );
    assert_eq!(
        warnings("record = ['a', 'b/c']", r#"{"a": [], "b": []}"#),
        ["nothing is on the record path `b/c`"]
    );
    for toml in ["record = ['a/b', 'c']", "record = ['c']"] {
        assert_eq!(rejected(toml, SHOP).reason, Reason::NoRecords);
        assert_eq!(rejected(toml, r#"{"a": [1]}"#).reason, Reason::NoRecords);
    }
}

#[test]
fn a_repetition_that_is_not_declared_is_a_warning_once_for_its_path() {
    let xml = "<r><p><tag>1</tag><im><i>1</i></im></p><p><tag>1</tag><tag>2</tag><im><i/><i/></im></p><p><tag/><tag/><tag/><i/><i/></p></r>";
    let warning = |path: &str, record: u64| {
        format!(
            "`{path}` is repeated in record {record}, an array there and a single value elsewhere; name it in `arrays`"
        )
    };
    assert_eq!(
        warnings("", xml),
        [warning("tag", 2), warning("im/i", 2), warning("i", 3)]
    );
    assert_eq!(warnings("arrays = ['i']", xml), [warning("tag", 2)]);
    assert_eq!(warnings("arrays = ['im/i', 'tag']", xml), [warning("i", 3)]);
    assert!(warnings("fields = { t = 'tag' }", xml).is_empty());
    assert_eq!(
        lines("", xml)[..2],
        [
            r#"{"tag":"1","im":{"i":"1"}}"#,
            r#"{"tag":["1","2"],"im":{"i":["",""]}}"#
        ]
    );
    let many: String = (0..50).map(|n| format!("<n{n}/><n{n}/>")).collect();
    assert_eq!(warnings("", format!("<r><p>{many}</p></r>")).len(), 20);
}

#[test]
fn bound_prefixes_are_meant_by_namespace_in_every_kind_of_path() {
    let toml = "record = ['s:shop/s:offer', 's:shop/s:list/s:offer']\nnamespaces = { s = 'urn:shop', x = 'urn:x' }\n";
    let default = r#"<shop xmlns="urn:shop" xmlns:y="urn:x"><offer y:id="1" id="2"><y:img/><img/></offer><list><offer xmlns="">no</offer><offer/></list></shop>"#;
    let prefixed = r#"<q:shop xmlns:q="urn:shop" xmlns:y="urn:x"><q:offer y:id="1" id="2"><y:img/><q:img/></q:offer><q:list><offer>no</offer><q:offer/></q:list></q:shop>"#;
    let fields = "fields = { x = '@x:id', id = '@id', img = { each = 'x:img' }, own = { each = 's:img' }, literal = { each = 'img' } }";
    let expected = |literal: &str| {
        [
            format!(r#"{{"x":"1","id":"2","img":[""],"own":[""],"literal":{literal}}}"#),
            r#"{"x":null,"id":null,"img":[],"own":[],"literal":[]}"#.to_owned(),
        ]
    };
    for xml in [default, prefixed] {
        assert_eq!(lines(&format!("{toml}{fields}"), xml), expected("[]"));
    }
    let whole = lines(&format!("{toml}arrays = ['x:img']"), default);
    assert_eq!(
        whole[0], r#"{"@y:id":"1","@id":"2","y:img":[""],"img":""}"#,
        "whole records keep the names that the document has"
    );
    // A prefix means what the innermost declaration says, the element's own included.
    let inner = r#"<shop xmlns="urn:shop"><s:offer xmlns:s="urn:other"/><z:offer xmlns:z="urn:shop" id="3"/><s:offer id="4"/></shop>"#;
    let ids = lines(&format!("{toml}fields = {{ id = '@id' }}"), inner);
    assert_eq!(ids, [r#"{"id":"3"}"#, r#"{"id":"4"}"#]);
}

#[test]
fn names_without_a_bound_prefix_are_compared_as_they_are_written_whatever_they_mean() {
    let xml = r#"<shop xmlns="urn:shop" xmlns:g="urn:g"><g:offer><g:id>1</g:id><id>2</id></g:offer></shop>"#;
    assert_eq!(
        lines(
            "record = 'shop/g:offer'\nfields = { a = 'g:id', b = 'id', c = 'h:id' }",
            xml
        ),
        [r#"{"a":"1","b":"2","c":null}"#]
    );
}

#[test]
fn numbers_of_json_keep_their_exact_text() {
    let numbers = "[0, -0, 1.50, 1E5, 1e-07, 12345678901234567890123.4567890123456789000, 1e999]";
    let expected = numbers.replace(", ", ",");
    assert_eq!(lines("", format!("[{numbers}]")), [&*expected]);
    assert_eq!(
        lines("record = 'n'", format!("{{\"n\": {numbers}}}")).join(","),
        expected[1..expected.len() - 1]
    );
    assert_eq!(
        lines("", format!("[{{\"n\": {numbers}}}]")),
        [format!("{{\"n\":{expected}}}")]
    );
    assert_eq!(
        lines(
            "fields = { n = { each = 'n' } }",
            format!("[{{\"n\": {numbers}}}]")
        ),
        [format!("{{\"n\":{expected}}}")]
    );
    assert_eq!(
        lines("format = 'json_lines'", "1.0 2.00{\"a\":1e0}[3]\n\"x\""),
        ["1.0", "2.00", r#"{"a":1e0}"#, "[3]", "\"x\""]
    );
}

#[test]
fn cdata_and_references_give_the_same_text_wherever_they_are_cut() {
    let texts: Vec<_> = [
        "&lt;p&gt;A &amp;amp; B&lt;/p&gt;",
        "<![CDATA[<p>A &amp; B</p>]]>",
        "&#60;p<![CDATA[>A ]]>&amp;<![CDATA[amp]]>; B<!-- x -->&#x3C;/p<?y?>>",
    ]
    .into_iter()
    .flat_map(|text| {
        let xml = format!("<r><p><t>{text}</t></p></r>");
        [lines("", &xml), lines("fields = { t = 't' }", &xml)]
    })
    .collect();
    assert_eq!(texts[0], [r#"{"t":"<p>A &amp; B</p>"}"#]);
    assert!(texts.iter().all(|text| *text == texts[0]), "{texts:?}");
}
