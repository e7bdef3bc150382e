//! JSON documents and JSON lines.

use super::*;

#[test]
fn an_array_is_converted_element_by_element_and_numbers_keep_their_text() {
    let json = r#" [ {"b": 1.50, "a": [1, {"x": null}], "b": "æ"}, 7, [] ]"#;
    assert_eq!(
        converted("", json),
        "[\n{\"b\":1.50,\"a\":[1,{\"x\":null}],\"b\":\"æ\"},\n7,\n[]\n]\n"
    );
    assert_eq!(converted("", "[]"), "[\n]\n");
}

#[test]
fn lines_are_values_one_after_another() {
    assert_eq!(
        converted("output = 'array'", "{\"a\":1}\n\n{\"a\":2}\r\n"),
        "[\n{\"a\":1},\n{\"a\":2}\n]\n"
    );
    assert_eq!(
        run(
            &plan_within(Limits::default(), "output = 'lines'"),
            &b"{\"a\": 1} {}"[..]
        )
        .unwrap(),
        "{\"a\":1}\n{}\n"
    );
    let second = rejected("", "{\"a\":1}\n{\"a\":\n");
    assert_eq!(
        (second.reason, second.record, second.line),
        (Reason::MalformedJson, Some(2), Some(3))
    );
}

#[test]
fn a_record_path_leads_through_objects_and_arrays() {
    let json = r#"{"meta": {"items": [9]}, "data": {"items": [{"a": 1}, {"a": 2}], "n": 2}}"#;
    assert_eq!(
        lines("record = 'data/items'", json),
        [r#"{"a":1}"#, r#"{"a":2}"#]
    );
    assert_eq!(
        lines(
            "record = 'a/b'",
            r#"[{"a": [{"b": 1}, {"b": [2, 3]}]}, {"a": {"b": {"c": 4}}}]"#
        ),
        ["1", "2", "3", r#"{"c":4}"#]
    );
    assert_eq!(converted("record = 'items'", r#"{"items": []}"#), "[\n]\n");
    assert_eq!(
        rejected("record = 'data/itmes'", json).reason,
        Reason::NoRecords
    );
    assert_eq!(
        rejected("format = 'json'", r#"{"a":1} {"a":2}"#).reason,
        Reason::MalformedJson
    );
}

#[test]
fn fields_take_values_as_they_stand_unless_typed() {
    let toml = r#"
        [fields]
        id = "id"
        text = { path = "id", type = "string" }
        price = { path = "offer/price", type = "decimal" }
        first = "tags"
        tags = { each = "tags" }
        sizes = { each = "offer/sizes", fields = { n = "n", m = { path = "m", default = 0 } } }
        by = { each = "offer/sizes", key = "s{n}", value = "m" }
        at = "@at"
        flag = "flag"
    "#;
    let json = r#"[{"flag":true,"id":12.50,"skip":{"id":[1]},"tags":["x",null,"y"],"offer":{"price":"9.90","sizes":[{"n":1,"m":5},{"n":"2"}]},"@at":"z"},{"id":null,"tags":"one"}]"#;
    assert_eq!(
        lines(toml, json),
        [
            r#"{"id":12.50,"text":"12.50","price":9.90,"first":"x","tags":["x",null,"y"],"sizes":[{"n":1,"m":5},{"n":"2","m":0}],"by":{"s1":5,"s2":null},"at":"z","flag":true}"#,
            r#"{"id":null,"text":null,"price":null,"first":"one","tags":["one"],"sizes":[],"by":{},"at":null,"flag":null}"#,
        ]
    );
}

#[test]
fn a_value_of_the_wrong_kind_is_a_rejection_with_its_path() {
    let object = rejected(
        "record = 'r'\nfields = { a = 'x/y' }",
        r#"{"r": [{"x": {"y": {"z": 1}}}]}"#,
    );
    assert_eq!(
        (object.reason, object.path.as_deref(), object.record),
        (Reason::InvalidValue, Some("r/x/y"), Some(1))
    );
    assert_eq!(
        rejected("fields = { a = 'x' }", "[7]").reason,
        Reason::InvalidValue
    );
    let required = rejected(
        "fields = { a = { path = 'x/y', required = true } }",
        "[{\"x\":{\"y\":1}},\n {\"x\":null}]",
    );
    assert_eq!(
        (required.reason, required.path.as_deref()),
        (Reason::MissingField, Some("x/y"))
    );
    assert_eq!(
        (required.record, required.line, required.column),
        (Some(2), Some(2), Some(2))
    );
}

#[test]
fn what_is_not_json_is_refused_also_where_nobody_looks() {
    for json in [
        "[",
        "[{}",
        "[{},",
        "[{}}",
        "[{}]]",
        "[{}] 2",
        "[{} {}]",
        "{\"a\":",
        "{\"skip\": tru}",
        "[{\"skip\": [1,]}]",
        "{\"skip\": \"\\q\"}",
        "{\"skip\": 01}",
    ] {
        for toml in ["", "fields = { a = 'a' }"] {
            let rejection = rejected(&format!("format = 'json'\n{toml}"), json);
            assert_eq!(rejection.reason, Reason::MalformedJson, "{json}");
        }
    }
    assert_eq!(rejected("", b"[\"\xff\"]").reason, Reason::InvalidEncoding);
}

#[test]
fn what_begins_like_nothing_known_is_said_so() {
    assert_eq!(rejected("", "").reason, Reason::EmptyFile);
    assert_eq!(rejected("", " \n\t ").reason, Reason::EmptyFile);
    assert_eq!(rejected("format = 'xml'", "").reason, Reason::EmptyFile);
    let text = rejected("", "Service unavailable, try again\n");
    assert_eq!(
        (text.reason, text.excerpt.as_deref()),
        (
            Reason::UnknownFormat,
            Some("Service unavailable, try again")
        )
    );
    assert_eq!(
        rejected("format = 'json'", "<a/>").reason,
        Reason::MalformedJson
    );
    assert_eq!(
        rejected("format = 'xml'", "[1]").reason,
        Reason::MalformedXml
    );
}
