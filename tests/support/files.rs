//! Partner files whose conversion is known without asking feedmill, and the feed that converts them.

use serde_json::{Value, json};

/// The feed of every [`super::World`] that does not say otherwise; `{input}` is its input bucket.
pub const PRODUCTS_FEED: &str = r#"
[[feeds]]
name = "products"
match = "s3://{input}/products/**"
record = "items/item"

[feeds.fields]
id = "@id"
name = "name"
version = "version"
"#;

/// A product file: as many records as asked, all of them naming its version.
#[derive(Clone, Debug)]
pub struct ProductFile {
    pub title: String,
    pub version: u32,
    pub records: usize,
}

impl ProductFile {
    pub fn new(title: impl Into<String>, version: u32) -> Self {
        Self {
            title: title.into(),
            version,
            records: 3,
        }
    }

    pub fn records(self, records: usize) -> Self {
        Self { records, ..self }
    }

    pub fn xml(&self) -> Vec<u8> {
        let Self { title, version, .. } = self;
        let mut xml = String::from("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<items>\n");
        for number in 1..=self.records {
            xml.push_str(&format!(
                "<item id=\"{number}\"><name>{title} &amp; {number}</name>\
                 <stock place=\"Köln\">7</stock><version>{version}</version></item>\n"
            ));
        }
        xml.push_str("</items>\n");
        xml.into_bytes()
    }

    /// The same file, cut off in the middle: it can only be dead-lettered.
    pub fn truncated_xml(&self) -> Vec<u8> {
        let mut xml = self.xml();
        xml.truncate(xml.len() / 2);
        xml
    }

    /// What the file converts to.
    pub fn json(&self) -> Value {
        let record = |number: usize| {
            json!({
                "id": number.to_string(),
                "name": format!("{} & {number}", self.title),
                "version": self.version.to_string(),
            })
        };
        (1..=self.records).map(record).collect()
    }
}
