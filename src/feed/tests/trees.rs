//! JSON of any shape, written in any of its ways, comes out as it went in.

use proptest::prelude::*;
use serde_json::Value;

use super::properties::Styles;
use super::*;

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn any_tree_survives_json(records in prop::collection::vec(tree(), 0..6), seed: u64) {
        let mut styles = Styles(seed);
        let expected: Vec<_> = records.iter().map(Value::to_string).collect();
        let document = Value::Array(records.clone());
        let text = written(&document, &mut styles);
        prop_assert_eq!(lines("format = 'json'", &text), expected.clone(), "{}", text);

        let inside = format!("{{\"v\":{},\"x\":[{{\"y\":{text}}},{{}}]}}", written(&document, &mut styles));
        prop_assert_eq!(lines("record = 'x/y'", &inside), expected.clone(), "{}", inside);

        let one_after_another: Vec<_> = records.iter().map(|record| written(record, &mut styles)).collect();
        let text = one_after_another.join(["\n", " ", "\r\n\n"][styles.pick(3)]);
        if !text.is_empty() {
            prop_assert_eq!(lines("format = 'json_lines'", &text), expected, "{}", text);
        }
    }

    #[test]
    fn what_is_asked_for_of_json_is_what_stands_there(values in prop::collection::vec(scalar(), 0..5), other in tree(), seed: u64) {
        let mut styles = Styles(seed);
        let list = Value::Array(values.clone());
        let first = values.first().unwrap_or(&Value::Null);
        let text = format!("[{{\"other\":{},\"list\":{},\"a\":{{\"b\":{}}}}}]",
            written(&other, &mut styles), written(&list, &mut styles), written(first, &mut styles));
        let toml = "fields = { first = 'a/b', list = { each = 'list' }, o = { fields = { f = 'list' } } }";
        let found = values.iter().find(|value| !value.is_null()).unwrap_or(&Value::Null);
        prop_assert_eq!(lines(toml, &text), [format!("{{\"first\":{first},\"list\":{list},\"o\":{{\"f\":{found}}}}}")], "{}", text);
    }
}

fn scalar() -> impl Strategy<Value = Value> {
    prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        "-?(0|[1-9][0-9]{0,25})(\\.[0-9]{1,20})?(e[+-][0-9]{1,3})?"
            .prop_map(|digits| Value::Number(digits.parse().unwrap())),
        text().prop_map(Value::from),
    ]
}

fn tree() -> impl Strategy<Value = Value> {
    scalar().prop_recursive(5, 40, 6, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
            prop::collection::vec((text(), inner), 0..6)
                .prop_map(|members| Value::Object(members.into_iter().collect())),
        ]
    })
}

fn text() -> impl Strategy<Value = String> {
    prop_oneof![
        "[a-z\"\\\\/\n\t\u{0}-\u{1f}\u{7f}æ😀]{0,6}",
        any::<String>()
    ]
}

/// `value` in one of the ways in which it may be written.
fn written(value: &Value, styles: &mut Styles) -> String {
    let space = |styles: &mut Styles| ["", "", " ", "\r\n\t "][styles.pick(4)];
    let inside = match value {
        Value::Array(values) => {
            let values: Vec<_> = values.iter().map(|value| written(value, styles)).collect();
            format!("[{}{}]", space(styles), values.join(","))
        }
        Value::Object(members) => {
            let member = |(key, value): (&String, &Value)| {
                let key = quoted(key, styles);
                format!("{key}{}:{}", space(styles), written(value, styles))
            };
            let members: Vec<_> = members.iter().map(member).collect();
            format!("{{{}{}}}", space(styles), members.join(", "))
        }
        Value::String(text) => quoted(text, styles),
        other => other.to_string(),
    };
    format!("{}{inside}{}", space(styles), space(styles))
}

/// RFC 8259, section 7. Only the slash may also stand as it is.
const ESCAPES: [(char, char); 8] = [
    ('"', '"'),
    ('\\', '\\'),
    ('/', '/'),
    ('\u{8}', 'b'),
    ('\u{c}', 'f'),
    ('\n', 'n'),
    ('\r', 'r'),
    ('\t', 't'),
];

/// A string whose characters stand as they are, in short escapes or in long ones.
fn quoted(text: &str, styles: &mut Styles) -> String {
    let mut quoted = String::from("\"");
    for c in text.chars() {
        let short = ESCAPES.iter().find(|(escaped, _)| *escaped == c);
        let must_be_escaped = c < ' ' || (short.is_some() && c != '/');
        match short {
            Some((_, letter)) if styles.pick(3) > 0 => quoted.extend(['\\', *letter]),
            _ if must_be_escaped || styles.pick(4) == 0 => {
                let units = c.encode_utf16(&mut [0; 2]).to_vec();
                quoted.extend(units.iter().map(|unit| format!("\\u{unit:04X}")));
            }
            _ => quoted.push(c),
        }
    }
    quoted + "\""
}
