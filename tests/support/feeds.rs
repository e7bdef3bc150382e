//! Product feeds of any size from a seed, as readers: the same seed gives the same bytes, on any machine, and nothing is held but one record.
//!
//! The NSX shape (attributes, CDATA, references, nested lists, indented as partners write it, about 660 bytes a record), a record of twenty plain
//! elements, and the latter as JSON lines and as CSV. Needs nothing but std, so that benches and unit tests can include it by its path.

use std::fmt::Write;
use std::io::{self, Read};

/// SplitMix64 (Steele, Lea, Flood 2014).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    fn pick<'w>(&mut self, words: &[&'w str]) -> &'w str {
        words[self.below(words.len() as u64) as usize]
    }

    fn words(&mut self, count: u64, out: &mut String) {
        for index in 0..count {
            out.push_str(if index == 0 { "" } else { " " });
            out.push_str(self.pick(&WORDS));
        }
    }
}

const WORDS: [&str; 24] = [
    "ribbed",
    "cardigan",
    "merino",
    "washed",
    "bambus",
    "søkker",
    "lightweight",
    "waterproof",
    "für",
    "kids",
    "size",
    "cotton",
    "recycled",
    "jacket",
    "crème",
    "slim",
    "fit",
    "with",
    "pockets",
    "zip",
    "hood",
    "black",
    "navy",
    "100 %",
];
const CATEGORIES: [&str; 5] = [
    "Knitwear &amp; Cardigans",
    "Socks",
    "Jackets",
    "Shoes &gt; Boots",
    "Accessories",
];
const CURRENCIES: [&str; 4] = ["EUR", "SEK", "DKK", "NOK"];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    Nsx,
    /// `items/item` with the elements `f1` to `f20`.
    Twenty,
    /// The same as JSON objects, one per line.
    TwentyLines,
    /// The same as CSV, with a header.
    TwentyRows,
}

/// A feed of `records` records.
pub struct Feed {
    shape: Shape,
    random: Random,
    record: u64,
    records: u64,
    chunk: String,
    taken: usize,
    is_over: bool,
}

impl Feed {
    pub fn new(shape: Shape, seed: u64, records: u64) -> Self {
        let head = match shape {
            Shape::Nsx => "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<nsx:items>\n",
            Shape::Twenty => "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<items>\n",
            Shape::TwentyLines => "",
            Shape::TwentyRows => {
                "f1,f2,f3,f4,f5,f6,f7,f8,f9,f10,f11,f12,f13,f14,f15,f16,f17,f18,f19,f20\n"
            }
        };
        Self {
            shape,
            random: Random(seed),
            record: 0,
            records,
            chunk: head.to_owned(),
            taken: 0,
            is_over: false,
        }
    }

    /// The whole feed, for sizes that fit into memory.
    pub fn bytes(mut self) -> Vec<u8> {
        let mut bytes = Vec::new();
        self.read_to_end(&mut bytes).expect("memory can be read");
        bytes
    }

    fn refill(&mut self) {
        self.chunk.clear();
        self.taken = 0;
        if self.record < self.records {
            self.record += 1;
            match self.shape {
                Shape::Nsx => self.nsx_item(),
                Shape::Twenty => self.twenty_elements(),
                Shape::TwentyLines => self.twenty_members(),
                Shape::TwentyRows => self.twenty_cells(),
            }
        } else if !self.is_over {
            self.is_over = true;
            self.chunk.push_str(match self.shape {
                Shape::Nsx => "</nsx:items>\n",
                Shape::Twenty => "</items>\n",
                Shape::TwentyLines | Shape::TwentyRows => "",
            });
        }
    }

    fn nsx_item(&mut self) {
        let Self {
            random,
            chunk: out,
            record,
            ..
        } = self;
        let id = 7_310_000 + *record;
        push(
            out,
            format_args!(
                "  <nsx:item id=\"{id}\">\n    <nsx:category>{}</nsx:category>\n",
                random.pick(&CATEGORIES)
            ),
        );
        let words = 5 + random.below(20);
        if random.below(2) == 0 {
            out.push_str("    <nsx:description><![CDATA[<p>");
            random.words(words, out);
            out.push_str("</p>]]></nsx:description>\n");
        } else {
            out.push_str("    <nsx:description>");
            random.words(words, out);
            out.push_str("</nsx:description>\n");
        }
        out.push_str("    <nsx:images>\n");
        let mut kind = 0;
        for _ in 0..1 + random.below(3) {
            kind += 1 + random.below(2);
            let size = if random.below(3) == 0 {
                "?w=800&amp;h=600"
            } else {
                ""
            };
            push(
                out,
                format_args!(
                    "      <nsx:image type=\"{kind}\" url=\"https://img.example.com/{id}/{}.jpg{size}\"/>\n",
                    random.pick(&["front", "back", "pair"])
                ),
            );
        }
        out.push_str("    </nsx:images>\n    <nsx:prices>\n");
        for currency in CURRENCIES.iter().take(1 + random.below(3) as usize) {
            let (whole, cents) = (5 + random.below(2_000), random.below(100));
            push(
                out,
                format_args!(
                    "      <nsx:price><nsx:currency>{currency}</nsx:currency><nsx:value>{whole}.{cents:02}</nsx:value></nsx:price>\n"
                ),
            );
        }
        out.push_str("    </nsx:prices>\n  </nsx:item>\n");
    }

    fn twenty_elements(&mut self) {
        let Self {
            random, chunk: out, ..
        } = self;
        out.push_str("  <item>\n");
        for field in 1..=20 {
            push(out, format_args!("    <f{field}>"));
            value(field, random, out);
            push(out, format_args!("</f{field}>\n"));
        }
        out.push_str("  </item>\n");
    }

    fn twenty_members(&mut self) {
        let Self {
            random, chunk: out, ..
        } = self;
        for field in 1..=20 {
            push(
                out,
                format_args!("{}\"f{field}\":\"", if field == 1 { "{" } else { "," }),
            );
            value(field, random, out);
            out.push('"');
        }
        out.push_str("}\n");
    }

    fn twenty_cells(&mut self) {
        let Self {
            random, chunk: out, ..
        } = self;
        for field in 1..=20 {
            value(field, random, out);
            out.push(if field == 20 { '\n' } else { ',' });
        }
    }
}

fn push(out: &mut String, arguments: std::fmt::Arguments<'_>) {
    out.write_fmt(arguments).expect("a string takes it");
}

/// Numbers and texts in turn.
fn value(field: u64, random: &mut Random, out: &mut String) {
    if field.is_multiple_of(2) {
        push(out, format_args!("{}", random.below(100_000)));
    } else {
        let count = 1 + random.below(8);
        random.words(count, out);
    }
}

impl Read for Feed {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.taken == self.chunk.len() {
            self.refill();
        }
        let bytes = (&self.chunk.as_bytes()[self.taken..]).read(buffer)?;
        self.taken += bytes;
        Ok(bytes)
    }
}
