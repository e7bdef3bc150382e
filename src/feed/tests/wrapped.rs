//! What a file is wrapped in, and how it arrives, decides nothing: containers in one another, encodings, pieces.

use encoding_rs::Encoding;
use proptest::prelude::*;

use super::packing::{ZipEntry, bzip2, gzip, xz, zip, zip_of_one, zip64, zstd};
use super::properties::{self, Pieces};
use super::*;

type Pack = fn(&[u8]) -> Vec<u8>;

const CONTAINERS: [Pack; 7] = [gzip, zstd, bzip2, xz, zip_of_one, stored_zip64, members];
const MEMBERS: usize = 6;

fn stored_zip64(bytes: &[u8]) -> Vec<u8> {
    zip64(&[ZipEntry::stored("a", bytes)])
}

/// Two of them, one after the other.
fn members(bytes: &[u8]) -> Vec<u8> {
    let (one, other) = bytes.split_at(bytes.len() / 3);
    [gzip(one), gzip(other)].concat()
}

/// Files of every format, with characters that all of these encodings have, and feeds that take them.
const FILES: [(&str, &str); 5] = [
    ("", "<r><p id='1'>Жук &amp; 日本</p>\n<p/></r>"),
    ("fields = { a = '@id' }", "<r><p id='Я'/><p/></r>"),
    ("record = 'x'", "{\"x\": [\"日本\", {\"Ж\": 1.50}, []]}"),
    ("format = 'json_lines'", "{\"a\": \"Ж\"}\n{\"a\": 2}\n"),
    ("", "a;Ж\n1;日本\n\"2\n\";\n"),
];

const ENCODINGS: [&str; 5] = ["utf-8", "shift_jis", "gb18030", "euc-jp", "iso-2022-jp"];

fn encoded(text: &str, label: &str) -> Vec<u8> {
    let encoding = Encoding::for_label(label.as_bytes()).unwrap();
    let (bytes, _, has_unmappable) = encoding.encode(text);
    assert!(!has_unmappable, "{label}: {text}");
    bytes.into_owned()
}

fn utf_16(text: &str, is_big: bool, has_mark: bool) -> Vec<u8> {
    let mark = if has_mark { "\u{feff}" } else { "" };
    let units = mark.encode_utf16().chain(text.encode_utf16());
    units
        .flat_map(|unit| match is_big {
            true => unit.to_be_bytes(),
            false => unit.to_le_bytes(),
        })
        .collect()
}

fn sizes() -> impl Strategy<Value = Vec<usize>> {
    prop::collection::vec(prop_oneof![1..4usize, 1..50usize], 1..10)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn containers_decide_nothing_and_a_cut_one_is_refused(
        packs in prop::collection::vec(0..CONTAINERS.len(), 1..4),
        (toml, text) in prop::sample::select(FILES.to_vec()),
        sizes in sizes(),
        cut: prop::sample::Index,
    ) {
        let plan = plan_within(Limits::default(), toml);
        let packed = packs.iter().fold(text.as_bytes().to_vec(), |bytes, &pack| CONTAINERS[pack](&bytes));
        let pieces = |bytes| Pieces { rest: bytes, sizes: sizes.clone(), next: 0 };
        prop_assert_eq!(run(&plan, pieces(&packed)), run(&plan, text.as_bytes()));
        let cut = &packed[..cut.index(packed.len())];
        let outcome = run(&plan, cut);
        prop_assert_eq!(run(&plan, pieces(cut)), outcome.clone());
        // Between two members nobody can tell.
        if outcome.is_ok() {
            prop_assert_eq!(packs.last(), Some(&MEMBERS));
        }
    }

    #[test]
    fn encodings_decide_nothing(
        label in prop::sample::select(ENCODINGS.to_vec()),
        (toml, text) in prop::sample::select(FILES.to_vec()),
        utf_16_form in prop::option::of(any::<(bool, bool)>()),
        sizes in sizes(),
        cut: prop::sample::Index,
    ) {
        let toml = format!("encoding = '{label}'\n{toml}");
        let plan = plan_within(Limits::default(), &toml);
        let bytes = match utf_16_form {
            Some((is_big, has_mark)) => utf_16(text, is_big, has_mark),
            None => encoded(text, label),
        };
        let pieces = |bytes| Pieces { rest: bytes, sizes: sizes.clone(), next: 0 };
        let marked = format!("\u{feff}{text}");
        prop_assert_eq!(run(&plan, pieces(&bytes)), run(&plan, marked.as_bytes()), "{}", toml);
        let cut = &bytes[..cut.index(bytes.len())];
        prop_assert_eq!(run(&plan, pieces(cut)), run(&plan, cut), "{}", toml);
    }

    #[test]
    fn the_files_of_a_zip_become_what_they_become_alone(
        files in prop::collection::vec(prop::sample::select(FILES.to_vec()), 1..5),
        sizes in sizes(),
        seed: u8,
    ) {
        let entries: Vec<_> = files.iter().enumerate().map(|(n, (_, text))| {
            let pack = CONTAINERS[(usize::from(seed) + n) % CONTAINERS.len()];
            ZipEntry::new(n.to_string(), &pack(text.as_bytes()))
        }).collect();
        let alone: Vec<_> = files.iter().flat_map(|(_, text)| lines("", text)).collect();
        let zip = zip(&entries);
        let pieces = Pieces { rest: &zip, sizes, next: 0 };
        let output = run(&plan_within(Limits::default(), "output = 'lines'"), pieces).unwrap();
        prop_assert!(output.lines().eq(alone.iter().map(String::as_str)), "{}", output);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(8))]

    /// Longer than all buffers on the way.
    #[test]
    fn large_files_are_wrapped_like_small_ones(
        format in 0..3usize,
        form in 0..5usize,
        pack in prop::sample::select(CONTAINERS.to_vec()),
        sizes in prop::collection::vec(prop_oneof![1..200usize, 1..70_000usize], 1..20),
        cut: prop::sample::Index,
    ) {
        let text = match (form, format) {
            // In windows-874 it is a third of what it is in UTF-8.
            (4, _) => format!("<r>{}</r>", "<p>กขฃคฅฆงจฉชซฌญฎฏ</p>".repeat(8_000)),
            (_, 0) => properties::xml(4_000),
            (_, 1) => properties::json(4_000),
            _ => properties::csv(8_000),
        };
        let encoded = match form {
            0 => text.clone().into_bytes(),
            1 => utf_16(&text, true, true),
            2 => utf_16(&text, false, false),
            3 => encoded(&text, "gb18030"),
            _ => encoded(&text, "windows-874"),
        };
        let toml = ["", "", "", "encoding = 'gb18030'", "encoding = 'windows-874'"][form];
        let plan = plan_within(Limits::default(), toml);
        let utf_8 = run(&plan_within(Limits::default(), ""), text.as_bytes());
        let packed = pack(&encoded);
        let pieces = |bytes| Pieces { rest: bytes, sizes: sizes.clone(), next: 0 };
        prop_assert_eq!(run(&plan, pieces(&packed)), utf_8);
        for cut in [&packed[..cut.index(packed.len())], &encoded[..cut.index(encoded.len())]] {
            prop_assert_eq!(run(&plan, pieces(cut)), run(&plan, cut));
        }
    }
}

/// What a format is told by is at hand at once, so these begin after it.
#[test]
fn what_is_refused_is_shown_alike_however_it_arrives() {
    let comments = "<!-- -->\n".repeat(600);
    let spaces = " ".repeat(5_000);
    let long = "x".repeat(300);
    for (toml, before, after) in [
        (
            "",
            &comments,
            format!("<r>\n<p <q/>{long}</r>").into_bytes(),
        ),
        (
            "format = 'json'",
            &spaces,
            format!("[{{\"a\" 1, \"{long}\"}}]").into_bytes(),
        ),
        (
            "format = 'json'\nfields = { a = 'a' }",
            &spaces,
            format!("[{{\"a\": {{\"{long}\": 1}}}}]").into_bytes(),
        ),
        // What is wrong stands before half a character.
        (
            "format = 'json'\nencoding = 'shift_jis'",
            &spaces,
            b"}}\x81".to_vec(),
        ),
    ] {
        let plan = plan_within(Limits::default(), toml);
        let whole = [before.as_bytes(), &after].concat();
        let refused = run(&plan, &*whole).unwrap_err();
        let sizes = vec![1];
        let pieces = Pieces {
            rest: &after,
            sizes,
            next: 0,
        };
        let in_pieces = run(&plan, before.as_bytes().chain(pieces)).unwrap_err();
        assert_eq!(in_pieces, refused, "{toml}");
        assert!(refused.excerpt.is_some(), "{toml}");
    }
}
