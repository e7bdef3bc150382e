//! Avro single-object values as JSON, by the files under `schemas/` alone: what a consumer in any language could do.

use std::collections::HashMap;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use apache_avro::Schema;
use apache_avro::rabin::Rabin;
use apache_avro::reader::datum::GenericDatumReader;

use super::checker::Topic;

const MARKER: [u8; 2] = [0xC3, 0x01];

/// The schemas of one topic: today's, and the ones that older values were written with.
pub struct Schemas {
    today: Schema,
    writers: HashMap<[u8; 8], Schema>,
}

impl Schemas {
    pub fn of(topic: Topic) -> Result<Self> {
        let name = match topic {
            Topic::Events | Topic::Retries => "ObjectEvent",
            Topic::Results => "Result",
            Topic::Objects => "ObjectState",
            Topic::DeadLetters => "DeadLetter",
        };
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("schemas");
        let today = parse(&folder.join(format!("{name}.avsc")))?;
        let mut writers = HashMap::from([(fingerprint(&today), today.clone())]);
        for entry in fs::read_dir(folder.join("earlier"))? {
            let path = entry?.path();
            let file = path.file_name().map(|file| file.to_string_lossy());
            if file.is_some_and(|file| file.starts_with(&format!("{name}."))) {
                let schema = parse(&path)?;
                writers.insert(fingerprint(&schema), schema);
            }
        }
        Ok(Self { today, writers })
    }

    pub fn decode(&self, bytes: &[u8]) -> Result<serde_json::Value> {
        let rest = bytes
            .strip_prefix(&MARKER)
            .context("no single-object marker")?;
        let (fingerprint, mut datum) = rest.split_first_chunk::<8>().context("too short")?;
        let writer = self.writers.get(fingerprint).context("unknown schema")?;
        let value = GenericDatumReader::builder(writer)
            .reader_schema(&self.today)
            .build()?
            .read_value(&mut datum)?;
        ensure!(datum.is_empty(), "{} bytes are left over", datum.len());
        Ok(value.try_into()?)
    }
}

fn parse(path: &Path) -> Result<Schema> {
    let text = fs::read_to_string(path).with_context(|| path.display().to_string())?;
    Schema::parse_str(&text).with_context(|| path.display().to_string())
}

fn fingerprint(schema: &Schema) -> [u8; 8] {
    let bytes = schema.fingerprint::<Rabin>().bytes;
    bytes.try_into().expect("a CRC-64 has eight bytes")
}
