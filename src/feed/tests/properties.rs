//! What holds for every file: how it arrives decides nothing, and what was written into it comes out.

use std::io;

use proptest::prelude::*;
use serde_json::{Map, Value};

use super::*;

/// Gives a file in pieces of these sizes, again and again.
pub struct Pieces<'a> {
    pub rest: &'a [u8],
    pub sizes: Vec<usize>,
    pub next: usize,
}

impl Read for Pieces<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let size = self.sizes[self.next % self.sizes.len()].min(buffer.len());
        self.next += 1;
        self.rest.read(&mut buffer[..size])
    }
}

const XML: &str = "record = ['r/p', 'r/q/p']\nnamespaces = { g = 'u' }";
const XML_FIELDS: &str = "record = 'r/p'\nnamespaces = { g = 'u' }\nfields = { id = '@id', a = { each = 'g:a' }, b = 'b/c', n = { path = 'n', type = 'decimal' } }";
const JSON: &str = "record = ['x/items', 'y/*']";
const JSON_FIELDS: &str = "record = 'x/items'\nfields = { n = 'n', s = { each = 's' }, t = { path = 't', required = true } }";
const JSON_LINES: &str = "format = 'json_lines'\noutput = 'lines'";
const JSON_LINES_FIELDS: &str =
    "format = 'json_lines'\nfields = { n = 'n', s = { each = 's', join = ' ' } }\njq = '.n'";
const CSV: &str = "";
const CSV_FIELDS: &str =
    "fields = { n = { path = 'n', type = 'integer', required = true }, t = 'a text' }";
const TSV: &str = "format = 'tsv'\nmax_rejected = '50%'";
const TSV_FIELDS: &str = "format = 'tsv'\nfields = { t = { path = 'a text', trim = true } }";

pub fn xml(records: usize) -> String {
    let record = |n: usize| {
        let record = format!(
            "<p id='{n}&amp;'><h:a>\u{1f600}\r\n{n}</h:a><!-- <p> --><b><c><![CDATA[<i>æ]]></c></b>&#xE6;<n>0{n}.50</n><?p i?>\n<h:a/></p>\n"
        );
        if n.is_multiple_of(7) {
            format!("<q>{record}</q>")
        } else {
            record
        }
    };
    let records: String = (0..records).map(record).collect();
    format!(
        "<?xml version='1.0'?>\n<!DOCTYPE r [<!ENTITY x ']>'>]>\n<r xmlns:h='u'>{records}</r>\n"
    )
}

fn json_records(records: usize) -> Vec<String> {
    let record = |n: usize| {
        format!(
            "{{\"n\": {n}.50e+1, \"s\": [\"\\u00e6\\ud83d\\ude00\\n\", null, true], \"t\":\"æ{n}\", \"skip\": {{\"a\": []}}}}"
        )
    };
    (0..records).map(record).collect()
}

pub fn json(records: usize) -> String {
    let records = json_records(records);
    format!(
        "{{\"v\": 1, \"x\": {{\"items\" : [\n{}\n]}}, \"y\": {{\"k\": [1, 2], \"l\": {{}}}}}} ",
        records.join(",")
    )
}

pub fn csv(records: usize) -> String {
    let record = |n: usize| {
        format!(
            "{n};\"two\r\nlines, \"\"{n}\"\"\";æ\u{1f600};\r\n{}",
            "\n".repeat(n % 3)
        )
    };
    let records: String = (0..records).map(record).collect();
    format!("n;a text;other;last\r\n{records}")
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(16))]

    #[test]
    fn any_split_of_the_input_gives_the_same_output(
        sizes in prop::collection::vec(prop_oneof![1..4usize, 1..200usize, 1..70_000usize], 1..20),
        records in prop_oneof![0..30usize, 2_500..3_500usize],
        cut in prop::option::of(0.0..1.0f64),
    ) {
        for (tomls, text) in [
            ([XML, XML_FIELDS], xml(records)),
            ([JSON, JSON_FIELDS], json(records)),
            ([JSON_LINES, JSON_LINES_FIELDS], json_records(records).join("\n")),
            ([CSV, CSV_FIELDS], csv(records)),
            ([TSV, TSV_FIELDS], csv(records).replace(';', "\t")),
        ] {
            let end = cut.map_or(text.len(), |cut| (text.len() as f64 * cut) as usize);
            let bytes = &text.as_bytes()[..end];
            for toml in tomls {
                let plan = plan_within(Limits::default(), toml);
                let pieces = Pieces { rest: bytes, sizes: sizes.clone(), next: 0 };
                prop_assert_eq!(run(&plan, pieces), run(&plan, bytes), "{}", toml);
            }
        }
    }

}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn any_tree_survives_whole_conversion_of_xml(record in element(), seed: u64) {
        let mut styles = Styles(seed);
        let mut xml = String::from("<r>");
        record.write(&mut xml, &mut styles);
        xml.push_str("</r>");
        prop_assert_eq!(&lines("", &xml)[0], &record.json().to_string(), "{}", xml);
    }

    #[test]
    fn any_rows_survive_csv(
        rows in (1..5usize).prop_flat_map(|columns| prop::collection::vec(prop::collection::vec(cell(), columns), 1..6)),
        delimiter in prop::sample::select(vec![',', ';', '\t', '|', '^', ' ']),
        quote in prop::sample::select(vec!['"', '\'']),
        line_end in prop::sample::select(vec!["\n", "\r\n"]),
        seed: u64,
    ) {
        let mut styles = Styles(seed);
        let names: Vec<_> = (0..rows[0].len()).map(|n| format!("c{n}")).collect();
        let mut text = String::new();
        for row in [&names].into_iter().chain(&rows) {
            let cells: Vec<_> = row.iter().map(|cell| written(cell, delimiter, quote, row.len() == 1 || styles.pick(3) == 0)).collect();
            text += &(cells.join(&delimiter.to_string()) + line_end);
        }
        let toml = format!("format = 'csv'\ncsv = {{ delimiter = {}, quote = {} }}", Value::from(delimiter.to_string()), Value::from(quote.to_string()));
        let expected: Vec<_> = rows.iter().map(|row| {
            let object: Map<_, _> = names.iter().cloned().zip(row.iter().map(|cell| Value::from(cell.as_str()))).collect();
            Value::Object(object).to_string()
        }).collect();
        prop_assert_eq!(lines(&toml, &text), expected.clone(), "{}", text);
        let without_end = text.strip_suffix(line_end).unwrap();
        prop_assert_eq!(lines(&toml, without_end), expected);
    }

    #[test]
    fn the_delimiter_of_plain_rows_is_found(
        rows in (2..6usize).prop_flat_map(|columns| prop::collection::vec(prop::collection::vec("[a-z0-9. ]{0,6}", columns), 1..10)),
        delimiter in prop::sample::select(vec![",", ";", "\t", "|"]),
    ) {
        let names: Vec<_> = (0..rows[0].len()).map(|n| format!("c{n}")).collect();
        let text: String = [&names].into_iter().chain(&rows).map(|row| row.join(delimiter) + "\n").collect();
        let output = lines("", &text);
        prop_assert_eq!(output.len(), rows.len());
        for (line, row) in output.iter().zip(&rows) {
            let object: Map<String, Value> = serde_json::from_str(line).unwrap();
            prop_assert!(object.values().map(|cell| cell.as_str().unwrap()).eq(row.iter().map(String::as_str)), "{}", line);
        }
    }

    #[test]
    fn any_rows_give_an_output_or_a_named_reason(
        input in rows(),
        pick in 0..6usize,
    ) {
        let toml = [
            "", "format = 'csv'", "format = 'tsv'", "format = 'csv'\nfields = { x = 'a', y = { path = 'b/a', required = true } }",
            "format = 'csv'\ncsv = { delimiter = ',', quote = '', comment = '#', trim = true }", "format = 'csv'\ncsv = { header = false, columns = ['a', 'b'] }",
        ][pick];
        if let Ok(output) = run(&plan_within(Limits::default(), toml), &*input) {
            prop_assert!(serde_json::from_str::<Value>(&output).is_ok(), "{}", output);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// What is looked at to find the dialect is at hand at once, so it stands before them here.
    #[test]
    fn any_split_of_any_rows_gives_the_same(
        input in rows(),
        sizes in prop::collection::vec(1..8usize, 1..5),
        options in prop::sample::select(vec!["", "comment = '#', trim = true, ", "quote = \"'\", "]),
        record_bytes in 10..200usize,
    ) {
        let toml = format!("format = 'csv'\ncsv = {{ {options}delimiter = ',', header = false, columns = ['a', 'b'] }}\nmax_rejected = '90%'");
        let plan = plan_within(Limits { record_bytes, ..Limits::default() }, &toml);
        let before = "\n".repeat(70_000);
        let pieces = Pieces { rest: &input, sizes, next: 0 };
        let whole = [before.as_bytes(), &input].concat();
        prop_assert_eq!(run(&plan, before.as_bytes().chain(pieces)), run(&plan, &*whole), "{}", toml);
    }
}

fn rows() -> impl Strategy<Value = Vec<u8>> {
    let piece = prop::sample::select(vec![
        "a", "b", ",", ";", "\t", "|", "\"", "\"\"", "'", "\n", "\r\n", "\r", "#", " ", "é", "1",
        "\0", ".", "/", "@",
    ]);
    let bytes = prop::collection::vec(any::<u8>(), 0..4);
    (prop::collection::vec(piece, 0..60), bytes)
        .prop_map(|(pieces, bytes)| [pieces.concat().as_bytes(), &bytes].concat())
}

/// Ways to write the same thing, one after another.
pub struct Styles(pub u64);

impl Styles {
    pub fn pick(&mut self, ways: u64) -> usize {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        ((self.0 >> 33) % ways) as usize
    }
}

fn cell() -> impl Strategy<Value = String> {
    prop_oneof!["[a-z0-9 ]{0,5}", "[\"',;|\t\n\r^ax]{0,6}", any::<String>(),]
}

fn written(cell: &str, delimiter: char, quote: char, is_quoted: bool) -> String {
    let needs_quotes = cell.contains(['\n', '\r', delimiter, quote]);
    if !is_quoted && !needs_quotes {
        return cell.to_owned();
    }
    let doubled = cell.replace(quote, &format!("{quote}{quote}"));
    format!("{quote}{doubled}{quote}")
}

#[derive(Clone, Debug)]
struct Node {
    name: &'static str,
    attributes: Vec<(&'static str, String)>,
    children: Vec<Child>,
}

#[derive(Clone, Debug)]
enum Child {
    Text(String),
    Element(Node),
}

fn element() -> impl Strategy<Value = Node> {
    let leaf = node(Just(Vec::new()));
    leaf.prop_recursive(4, 40, 6, |inner| {
        let child = prop_oneof![
            text().prop_map(Child::Text),
            "[ \n\t]{1,3}".prop_map(Child::Text),
            inner.prop_map(Child::Element),
        ];
        node(prop::collection::vec(child, 0..6))
    })
}

fn node(children: impl Strategy<Value = Vec<Child>>) -> impl Strategy<Value = Node> {
    let names = || prop::sample::select(vec!["a", "b", "g:c", "søk", "A.b-1"]);
    let attributes = prop::collection::btree_map(names(), text(), 0..3);
    (names(), attributes, children).prop_map(|(name, attributes, children)| Node {
        name,
        attributes: attributes.into_iter().collect(),
        children,
    })
}

fn text() -> impl Strategy<Value = String> {
    let is_xml = |c: &char| matches!(c, '\t' | '\n' | '\r' | ' '..='\u{d7ff}' | '\u{e000}'..='\u{fffd}' | '\u{10000}'..);
    prop_oneof!["[a-z<>&;\"' \n\r\t\\]\\[!-]{0,8}", any::<String>()]
        .prop_map(move |text| text.chars().filter(is_xml).collect())
}

impl Node {
    fn write(&self, xml: &mut String, styles: &mut Styles) {
        xml.push('<');
        xml.push_str(self.name);
        for (name, value) in &self.attributes {
            let quote = if styles.pick(2) == 0 { '\'' } else { '"' };
            xml.push_str(&format!("\n {name} = {quote}"));
            xml.extend(value.chars().map(|c| match c {
                '<' | '&' | '\'' | '"' | '\n' | '\r' | '\t' => format!("&#{};", u32::from(c)),
                _ => c.to_string(),
            }));
            xml.push(quote);
        }
        if self.children.is_empty() && styles.pick(2) == 0 {
            return xml.push_str(" />");
        }
        xml.push('>');
        for child in &self.children {
            match child {
                Child::Element(node) => node.write(xml, styles),
                Child::Text(text) => write_text(text, xml, styles),
            }
            xml.push_str(["", "<!-- <a>&x; -->", "<?pi <a> ?>", ""][styles.pick(4)]);
        }
        xml.push_str(&format!("</{} >", self.name));
    }

    /// By the rules as the documentation has them.
    fn json(&self) -> Value {
        let text: String = self.children.iter().filter_map(Child::text).collect();
        let elements: Vec<_> = self.children.iter().filter_map(Child::element).collect();
        if self.attributes.is_empty() && elements.is_empty() {
            return Value::from(text);
        }
        let attributes = self.attributes.iter();
        let mut object: Map<String, Value> = attributes
            .map(|(name, value)| (format!("@{name}"), Value::from(value.as_str())))
            .collect();
        let is_layout = text.chars().all(|c| matches!(c, ' ' | '\t' | '\n' | '\r'));
        if !text.is_empty() && (!is_layout || elements.is_empty()) {
            object.insert("#text".to_owned(), Value::from(text));
        }
        for element in &elements {
            let same = elements.iter().filter(|other| other.name == element.name);
            let mut values: Vec<_> = same.map(|other| other.json()).collect();
            let value = if values.len() == 1 {
                values.remove(0)
            } else {
                Value::from(values)
            };
            object.entry(element.name).or_insert(value);
        }
        Value::Object(object)
    }
}

impl Child {
    fn text(&self) -> Option<&str> {
        match self {
            Self::Text(text) => Some(text),
            Self::Element(_) => None,
        }
    }

    fn element(&self) -> Option<&Node> {
        match self {
            Self::Element(node) => Some(node),
            Self::Text(_) => None,
        }
    }
}

fn write_text(text: &str, xml: &mut String, styles: &mut Styles) {
    let style = styles.pick(3);
    if style == 0 && !text.contains('\r') {
        let split = text.replace("]]>", "]]]]><![CDATA[>");
        return xml.push_str(&format!("<![CDATA[{split}]]>"));
    }
    xml.extend(text.chars().map(|c| match c {
        '<' => "&lt;".to_owned(),
        '&' => "&amp;".to_owned(),
        '>' | '\r' => format!("&#x{:x};", u32::from(c)),
        _ if style == 1 => format!("&#{};", u32::from(c)),
        _ => c.to_string(),
    }));
}
