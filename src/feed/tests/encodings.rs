//! Files in other encodings than UTF-8, and files that lie about theirs.

use super::*;

/// `text` in UTF-16, with or without a mark.
fn utf16(text: &str, mark: bool, unit: fn(u16) -> [u8; 2]) -> Vec<u8> {
    let mark = mark.then_some(0xfeff);
    let units = mark.into_iter().chain(text.encode_utf16());
    units.flat_map(unit).collect()
}

fn declared(label: &str, text: &[u8]) -> Vec<u8> {
    let head = format!("<?xml version='1.0' encoding='{label}'?><r><p>");
    [head.as_bytes(), text, b"</p></r>"].concat()
}

#[test]
fn utf_16_is_read_with_a_mark_and_without() {
    let xml = "<?xml version='1.0' encoding='utf-16'?>\n<r><p>æ 😀 \u{85}</p></r>";
    let json = r#" [{"a": "æ 😀 \ud83d\ude00"}, 1.50]"#;
    let expected = [lines("", xml.replace("utf-16", "utf-8")), lines("", json)];
    for (text, expected) in [xml, json].into_iter().zip(expected) {
        for unit in [u16::to_be_bytes, u16::to_le_bytes] {
            for mark in [true, false] {
                assert_eq!(lines("", utf16(text, mark, unit)), expected);
                let otherwise = "encoding = 'windows-1251'";
                assert_eq!(lines(otherwise, utf16(text, mark, unit)), expected);
            }
        }
    }
}

#[test]
fn single_byte_encodings_are_read_as_declared_and_then_as_the_feed_says() {
    for (label, bytes, text) in [
        ("ISO-8859-1", &b"\xe6 \x80"[..], "æ €"),
        ("iso-8859-2", b"\xe6\xb1", "ćą"),
        ("ISO-8859-15", b"\xa4", "€"),
        ("windows-1250", b"\x8a\xe8", "Šč"),
        ("Windows-1251", b"\xd2\xee\xe2\xe0\xf0", "Товар"),
        ("windows-1252", b"\x93x\x94", "“x”"),
        ("cp1253", b"\xe1", "α"),
        ("koi8-r", b"\xf4\xcf\xd7\xc1\xd2", "Товар"),
        ("us-ascii", b"x", "x"),
        ("UTF-8", "æ".as_bytes(), "æ"),
    ] {
        let expected = format!("[\n\"{text}\"\n]\n");
        assert_eq!(converted("", declared(label, bytes)), expected, "{label}");
        let setting = format!("encoding = '{label}'");
        let bare = [b"<r><p>", bytes, b"</p></r>"].concat();
        assert_eq!(converted(&setting, &bare), expected, "{label}");
        let json = [b"[\"", bytes, b"\"]"].concat();
        assert_eq!(converted(&setting, json), expected, "{label}");
        // The file's own word counts more.
        let other = "encoding = 'windows-1257'";
        assert_eq!(
            converted(other, declared(label, bytes)),
            expected,
            "{label}"
        );
    }
    // And a byte order mark counts more than either.
    let marked = [
        b"\xef\xbb\xbf",
        &declared("windows-1251", "æ".as_bytes())[..],
    ]
    .concat();
    assert_eq!(lines("encoding = 'windows-1252'", marked), [r#""æ""#]);
    assert_eq!(
        lines("", declared("windows-1252", &b"\xe6".repeat(200_000)))[0]
            .chars()
            .count(),
        200_002
    );
}

#[test]
fn bytes_that_the_encoding_does_not_have_are_refused_with_their_place() {
    for (label, bytes) in [
        ("windows-1252", &b"\x81"[..]),
        ("iso-8859-1", b"\x9d"),
        ("iso-8859-2", b"\x93"),
        ("windows-1253", b"\xaa"),
        ("iso-8859-7", b"\xff"),
        ("us-ascii", b"\xe6"),
        ("utf-8", b"\xe6"),
        ("shift_jis", b"\xff"),
    ] {
        let rejection = rejected("", declared(label, &[b"ab\n", bytes, b"c"].concat()));
        assert_eq!(rejection.reason, Reason::InvalidEncoding, "{label}");
    }
    let rejection = rejected("encoding = 'windows-1252'", b"<r>\n<p>\xe6\xe6\x81</p></r>");
    assert!(rejection.message.contains("at byte 9 "), "{rejection}");
    // In UTF-8, where each of the two before takes two bytes.
    assert_eq!(rejection.byte_offset, Some(11));
    assert_eq!((rejection.line, rejection.column), (Some(2), Some(8)));
    let late = [
        b"<r>".to_vec(),
        b"<p>\xe6</p>\n".repeat(50_000),
        b"<p>\x90".to_vec(),
    ]
    .concat();
    let rejection = rejected("encoding = 'windows-1252'", late);
    assert_eq!(
        (rejection.line, rejection.record),
        (Some(50_001), Some(50_001))
    );
    assert!(rejection.message.contains("at byte 450006 "), "{rejection}");
}

#[test]
fn half_a_character_in_utf_16_is_refused() {
    let text = |units: &[u16]| -> Vec<u8> {
        let before = "<r><p>æ".encode_utf16();
        let after = "</p></r>".encode_utf16();
        let units = before.chain(units.iter().copied()).chain(after);
        units.flat_map(u16::to_le_bytes).collect()
    };
    assert_eq!(lines("", text(&[0xd83d, 0xde00])), [r#""æ😀""#]);
    for lone in [
        &[0xd83d][..],
        &[0xde00],
        &[0xde00, 0xd83d],
        &[0xd83d, 0xd83d],
    ] {
        let rejection = rejected("", text(lone));
        assert_eq!(rejection.reason, Reason::InvalidEncoding);
        assert_eq!(rejection.byte_offset, Some(8));
        assert!(rejection.message.contains("at byte 14 "), "{rejection}");
    }
    let mut odd = text(&[]);
    odd.push(b' ');
    assert_eq!(rejected("", odd).reason, Reason::InvalidEncoding);
}

#[test]
fn what_is_not_utf_8_is_never_taken_for_it() {
    for bytes in [
        &b"\xc0\xaf"[..],
        b"\xe0\x80\xaf",
        b"\xf0\x80\x80\xaf",
        b"\xed\xa0\xbd",
        b"\xed\xb8\x80",
        b"\xf4\x90\x80\x80",
        b"\xf8\x88\x80\x80\x80",
        b"\x80",
        b"\xc3",
        b"\xff",
        b"\xfe",
    ] {
        for (toml, before, after) in [
            ("", &b"<r><p>"[..], &b"</p></r>"[..]),
            ("", b"<r><p a='", b"'/></r>"),
            ("", b"<r><p><![CDATA[", b"]]></p></r>"),
            ("", b"[\"", b"\"]"),
            ("fields = { a = 'b' }", b"<r><p>", b"</p></r>"),
            ("fields = { a = 'b' }", b"[{\"a\":\"", b"\"}]"),
        ] {
            let rejection = rejected(toml, [before, bytes, after].concat());
            assert_eq!(rejection.reason, Reason::InvalidEncoding, "{bytes:x?}");
        }
    }
}

#[test]
fn encodings_that_are_not_read_and_wrong_declarations_are_named() {
    for label in [
        "utf-7",
        "utf-32",
        "ebcdic-cp-us",
        "x-user-defined",
        "iso-2022-kr",
        "nonsense",
    ] {
        let rejection = rejected("", declared(label, b"x"));
        assert_eq!(rejection.reason, Reason::UnsupportedEncoding, "{label}");
        assert!(rejection.message.contains(label), "{rejection}");
    }
    for utf32 in [
        &b"\xff\xfe\0\0<\0\0\0"[..],
        b"\0\0\xfe\xff\0\0\0<",
        b"<\0\0\0r\0\0\0",
        b"\0\0\0<\0\0\0r",
    ] {
        assert_eq!(rejected("", utf32).reason, Reason::UnsupportedEncoding);
    }
    assert_eq!(
        rejected("", declared("utf-16", b"x")).reason,
        Reason::InvalidEncoding
    );
    // A declaration that nobody could have heeded.
    for early in [" ".repeat(1_100), String::new()] {
        let spaces = " ".repeat(1_100 - early.len());
        let xml = format!("{early}<?xml version='1.0' {spaces} encoding='windows-1252'?><r/>");
        assert_eq!(rejected("", xml).reason, Reason::MalformedXml);
    }
    let in_time = format!(
        "{}<?xml version='1.0' encoding='windows-1252'?><r><p>\u{1}</p></r>",
        " ".repeat(900)
    );
    let bytes: Vec<u8> = in_time
        .bytes()
        .map(|byte| if byte == 1 { 0xe6 } else { byte })
        .collect();
    assert_eq!(lines("", bytes), [r#""æ""#]);
}
