//! Packed files, converted.

use std::io;

use proptest::prelude::*;

use super::packing::*;
use super::*;

#[test]
fn each_entry_of_a_zip_is_a_document_of_its_own() {
    let entries = [
        ZipEntry::new("readme/", b""),
        ZipEntry::new(
            "1.xml",
            b"<?xml version='1.0' encoding='windows-1252'?><r><p>\xe6</p></r>",
        ),
        ZipEntry::new("2.json.gz", &gzip(b"[{\"a\":1},2]")),
        ZipEntry::stored("3.txt", "\u{feff}{\"b\":2}\n{\"b\":3}\n".as_bytes()),
    ];
    let expected = [r#""æ""#, r#"{"a":1}"#, "2", r#"{"b":2}"#, r#"{"b":3}"#];
    assert_eq!(lines("", zip(&entries)), expected);
    assert_eq!(lines("", gzip(&zip64(&entries))), expected);
}

#[test]
fn a_rejection_names_the_entry_and_the_place_in_it() {
    let good = ZipEntry::new("a.xml", b"<r>\n<p>1</p>\n<p>2</p></r>");
    let of = |second: &[u8]| zip(&[good.clone(), ZipEntry::new("in/b\n.xml", second)]);
    let malformed = rejected("", of(b"<r>\n<p><q></p></r>"));
    assert_eq!(malformed.reason, Reason::MalformedXml);
    assert_eq!(
        malformed.path.as_deref(),
        Some("zip entry in/b .xml: r/p/q")
    );
    assert_eq!((malformed.record, malformed.line), (Some(3), Some(2)));
    let unknown = rejected("", of(b"id;name"));
    assert_eq!(unknown.reason, Reason::UnknownFormat);
    assert_eq!(unknown.path.as_deref(), Some("zip entry in/b .xml"));
    // Each document has its own way to its records.
    let nothing = rejected("record = 'r/p'", of(b"<r><x/></r>"));
    assert_eq!(nothing.reason, Reason::NoRecords);
    assert_eq!(rejected("", of(b"  ")).reason, Reason::EmptyFile);
    let long = "n".repeat(1_000);
    let entry = ZipEntry::new(&long, b"x");
    assert!(rejected("", zip(&[entry])).path.unwrap().len() < 200);
}

#[test]
fn a_record_that_is_left_out_names_its_entry_too() {
    let fields = "fields = { id = { path = '@id', required = true } }\n";
    let jq = "jq = 'if .[\"@id\"] then . else error(\"no id\") end'\n";
    let of = |first: &[u8], second: &[u8]| {
        zip(&[
            ZipEntry::new("a.xml", first),
            ZipEntry::new("b.xml", second),
        ])
    };
    let (good, bad) = (
        &b"<r><i id='1'/><i id='2'/></r>"[..],
        &b"<r><i/><i id='3'/></r>"[..],
    );
    let paths = |toml: &str, zip: Vec<u8>| -> Vec<_> {
        let plan = plan_within(Limits::default(), toml);
        let summary = convert(&plan, &source(), &zip[..], io::sink()).unwrap();
        let path = |rejection: &Rejection| rejection.path.clone().unwrap();
        summary.rejections.iter().map(path).collect()
    };
    for (mapping, inside) in [(fields, ": r/i/@id"), (jq, "")] {
        let toml = format!("max_rejected = 2\n{mapping}");
        let (a, b) = (
            format!("zip entry a.xml{inside}"),
            format!("zip entry b.xml{inside}"),
        );
        assert_eq!(paths(&toml, of(bad, good)), [&a[..]]);
        assert_eq!(paths(&toml, of(good, bad)), [&b[..]]);
        assert_eq!(paths(&toml, of(bad, bad)), [&a[..], &b]);
        // Refused because of them: the place is that of the first.
        for most in ["max_rejected = 1", "max_rejected = '10%'"] {
            let refused = rejected(&format!("{most}\n{mapping}"), of(bad, bad));
            assert_eq!(refused.reason, Reason::TooManyRejections);
            assert_eq!(refused.path.as_deref(), Some(&a[..]));
        }
        let refused = rejected(mapping, of(bad, good));
        assert_eq!(refused.path.as_deref(), Some(&a[..]), "{mapping}");
    }
}

#[test]
fn a_zip_without_files_is_an_empty_file() {
    let folder = [ZipEntry::stored("folder/", b"")];
    for empty in [zip(&[]), zip64(&folder), gzip(&zip(&folder))] {
        assert_eq!(rejected("", empty).reason, Reason::EmptyFile);
    }
}

#[test]
fn what_is_damaged_after_the_last_record_is_damaged() {
    let xml = b"<r><p>1</p></r>";
    let mut entry = ZipEntry::new("a", xml);
    entry.crc ^= 1;
    assert_eq!(rejected("", zip(&[entry])).reason, Reason::CorruptZip);
    let mut gzip = gzip(xml);
    let crc = gzip.len() - 8;
    gzip[crc] ^= 1;
    let rejection = rejected("", gzip);
    assert_eq!(rejection.reason, Reason::CorruptGzip);
}

type Pack = fn(&[u8]) -> Vec<u8>;
const PACKS: [Pack; 8] = [
    <[u8]>::to_vec,
    gzip,
    zstd,
    bzip2,
    xz,
    zip_of_one,
    |bytes| zip64(&[ZipEntry::stored("1", bytes)]),
    |bytes| gzip(&zip_of_one(&bzip2(bytes))),
];

/// The text in each encoding, told by itself.
fn encoded(text: &str, pick: usize) -> Vec<u8> {
    match pick {
        0 => text.into(),
        1 => [0xfeff]
            .into_iter()
            .chain(text.encode_utf16())
            .flat_map(u16::to_be_bytes)
            .collect(),
        2 => text.encode_utf16().flat_map(u16::to_le_bytes).collect(),
        _ => [
            b"<?xml version='1.0' encoding='windows-1252'?>",
            &*encoding_rs::WINDOWS_1252.encode(text).0,
        ]
        .concat(),
    }
}

/// Gives what it has in pieces of these lengths.
struct Pieces<'a>(&'a [u8], std::iter::Cycle<std::vec::IntoIter<usize>>);

impl Read for Pieces<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let end = buffer.len().min(self.1.next().unwrap_or(1));
        self.0.read(&mut buffer[..end])
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn any_split_of_any_packing_of_any_encoding_gives_the_same_output(
        names in prop::collection::vec("[a-zæøå€ ]{0,40}", 1..40),
        pack in 0..PACKS.len(),
        encoding in 0..4usize,
        splits in prop::collection::vec(1..200usize, 1..8),
    ) {
        let records: String = names.iter().map(|name| format!("<p>{name}</p>\n")).collect();
        let xml = format!("<r>{records}</r>");
        let input = PACKS[pack](&encoded(&xml, encoding));
        let expected = converted("", &xml);
        prop_assert_eq!(&converted("", &input), &expected);
        let pieces = Pieces(&input, splits.into_iter().cycle());
        prop_assert_eq!(run(&plan_within(Limits::default(), ""), pieces).unwrap(), expected);
    }

    #[test]
    fn a_packed_file_cut_anywhere_is_never_taken_for_a_shorter_one(
        pack in 1..PACKS.len(),
        encoding in 0..4usize,
        at in 0.0..1.0f64,
    ) {
        let input = PACKS[pack](&encoded(&format!("<r>{}</r>", "<p>æ</p>".repeat(50)), encoding));
        let cut = (input.len() as f64 * at) as usize;
        let plan = plan_within(Limits::default(), "");
        let once = run(&plan, &input[..cut]).unwrap_err();
        let again = run(&plan, Pieces(&input[..cut], vec![7].into_iter().cycle())).unwrap_err();
        prop_assert_eq!(once, again);
    }

    #[test]
    fn any_change_of_a_packed_file_gives_an_output_or_a_named_reason(
        pack in 1..PACKS.len(),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
        cut in any::<prop::sample::Index>(),
    ) {
        let mut input = PACKS[pack](&b"<r><p>some text</p><p>more text</p></r>".repeat(20));
        for (at, byte) in changes {
            let at = at.index(input.len());
            input[at] = byte;
        }
        let plan = plan_within(Limits::default(), "");
        let _ = run(&plan, &*input);
        let _ = run(&plan, &input[..cut.index(input.len())]);
    }

    #[test]
    fn any_zip_fields_give_an_output_or_a_named_reason(
        numbers in prop::array::uniform4(prop_oneof![any::<u64>(), 0..200u64]),
        flags: u16,
        method in 0..12u16,
        count in 0..4u64,
        is_zip64: bool,
    ) {
        let [size, packed_size, offset, crc] = numbers;
        let mut entry = ZipEntry::new("a", b"<r><p>x</p></r>");
        (entry.flags, entry.method, entry.crc) = (flags, method, crc as u32);
        (entry.size, entry.packed_size, entry.offset) = (size, packed_size, Some(offset));
        let input = zip_with(&[ZipEntry::new("b", b"<r/>"), entry], count, is_zip64);
        let _ = run(&plan_within(Limits::default(), ""), &*input);
    }
}
