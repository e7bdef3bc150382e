//! Files that mean harm, or are merely cut, and streams that fail.

use std::io;

use flate2::Compression;
use flate2::write::GzEncoder;
use proptest::prelude::*;

use super::*;

const SMALL: Limits = Limits {
    file_bytes: 16 << 30,
    record_bytes: 64 << 10,
    records: 10_000_000,
    text_bytes: 64 << 10,
    depth: 16,
    attributes: 8,
    name_bytes: 100,
    decompression_ratio: 500,
    decompressor_bytes: 80 << 20,
    spool_bytes: 1 << 30,
    zip_entries: 1_000,
    nesting: 3,
    gap: 1_000,
    jq_outputs: 10,
    jq_timeout: std::time::Duration::from_millis(100),
};

/// `head`, then `body` for ever.
fn endless(head: &'static str, body: &'static [u8]) -> impl Read {
    struct Cycle(&'static [u8], usize);
    impl Read for Cycle {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            for byte in &mut *buffer {
                *byte = self.0[self.1 % self.0.len()];
                self.1 += 1;
            }
            Ok(buffer.len())
        }
    }
    head.as_bytes().chain(Cycle(body, 0))
}

#[test]
fn a_piece_without_end_is_refused_before_it_is_held() {
    for head in [
        "<r><p>",
        "<r><p a='",
        "<r><!--",
        "<r><![CDATA[",
        "<!DOCTYPE r [ <!ENTITY x '",
        "<r><?pi ",
        "<r>&",
        "</",
        "<r><p></",
        "<r>",
        "<",
        "<r><skip><deep><p>",
        "[{\"a\":\"",
        "[{\"b\":\"",
        "{\"a\":",
        "{\"",
    ] {
        for toml in ["", "fields = { a = 'a' }"] {
            let rejection = rejected_within(SMALL, toml, endless(head, b"x"));
            assert!(
                matches!(
                    rejection.reason,
                    Reason::RecordTooLarge | Reason::NameTooLong
                ),
                "{head}: {rejection:?}"
            );
        }
    }
}

#[test]
fn a_record_of_many_small_parts_is_bounded_too() {
    for (toml, head, body) in [
        ("", "<r><p>", &b"<a/>"[..]),
        (
            "fields = { a = { each = 'a', fields = { b = 'b' } } }",
            "<r><p>",
            b"<a/>",
        ),
        ("fields = { a = 'b' }", "<r><p>", b"<a/>"),
        ("", "[[", b"1,"),
        ("fields = { a = 'b' }", "[{\"a\":[", b"[],"),
    ] {
        let rejection = rejected_within(SMALL, toml, endless(head, body));
        assert_eq!(
            (rejection.reason, rejection.record),
            (Reason::RecordTooLarge, Some(1)),
            "{toml} {head}"
        );
    }
    // Small in the file and small as JSON, large in between.
    let many = format!("<r><p>{}</p></r>", "<a/>".repeat(10_000));
    for toml in [
        "",
        "fields = { a = { each = 'a', key = 'k', value = '.' } }",
    ] {
        assert_eq!(
            rejected_within(SMALL, toml, many.as_bytes()).reason,
            Reason::RecordTooLarge,
            "{toml}"
        );
    }
    // Little in, much out: a kilobyte of keys for each few bytes.
    let toml = "fields = { a = { each = 'a', fields = { k = { each = 'i', key = 'image_{.}', value = '.', fill_gaps = true } } } }";
    let bomb = format!("<r><p>{}</p></r>", "<a><i>1000</i></a>".repeat(500));
    assert_eq!(
        rejected_within(SMALL, toml, bomb.as_bytes()).reason,
        Reason::RecordTooLarge
    );
}

#[test]
fn each_limit_has_its_own_reason() {
    let reason = |xml: &str| rejected_within(SMALL, "", xml.as_bytes()).reason;
    assert_eq!(reason(&"<a>".repeat(17)), Reason::TooDeep);
    assert_eq!(
        rejected_within(SMALL, "record = 'x'", endless("", b"<a>")).reason,
        Reason::TooDeep
    );
    assert_eq!(reason(&"[".repeat(17)), Reason::TooDeep);
    let attributes: String = (0..9).map(|n| format!(" a{n}=''")).collect();
    assert_eq!(
        reason(&format!("<r><p{attributes}/></r>")),
        Reason::TooManyAttributes
    );
    assert_eq!(
        reason(&format!("<r><{}/></r>", "n".repeat(101))),
        Reason::NameTooLong
    );
    assert_eq!(
        reason(&format!("[{{\"{}\":1}}]", "n".repeat(101))),
        Reason::NameTooLong
    );
    let limits = Limits {
        file_bytes: 1_000_000,
        ..SMALL
    };
    assert_eq!(
        rejected_within(limits, "", endless("<r>", b"<p/>")).reason,
        Reason::FileTooLarge
    );
}

#[test]
fn the_place_is_right_wherever_the_buffers_end() {
    for padding in [
        0, 1, 1_000, 130_000, 131_000, 131_071, 131_072, 131_073, 300_000,
    ] {
        let head = format!("<r>\n{}\n", "x\ny".repeat(padding / 3));
        let xml = format!("{head}  <p a='{}", "z\n".repeat(100_000));
        let rejection = rejected("record = 'r/p'", &xml);
        assert_eq!(rejection.reason, Reason::MalformedXml);
        assert_eq!(
            rejection.byte_offset,
            Some(head.len() as u64 + 2),
            "{padding}"
        );
        assert_eq!(
            rejection.line,
            Some(head.lines().count() as u64 + 1),
            "{padding}"
        );
        assert_eq!(rejection.column, Some(3), "{padding}");
    }
}

#[test]
fn many_names_and_many_records_stay_fast() {
    let children: String = (0..100_000).map(|n| format!("<n{n}/>")).collect();
    assert_eq!(lines("", format!("<r><p>{children}</p></r>")).len(), 1);
    assert_eq!(
        lines(
            "fields = { a = 'a' }",
            format!("<r>{}</r>", "<p/>".repeat(200_000))
        )
        .len(),
        200_000
    );
}

#[test]
fn the_callers_own_failures_are_never_the_files_fault() {
    struct Failing<'a>(&'a [u8]);
    impl Read for Failing<'_> {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            if self.0.is_empty() {
                Err(io::ErrorKind::UnexpectedEof.into())
            } else {
                self.0.read(buffer)
            }
        }
    }
    for (toml, input) in [
        (NSX, nsx(3).as_bytes()),
        ("", b"[{\"a\": \"b\"}, 1]"),
        ("", b"{}\n"),
    ] {
        let plan = plan_within(Limits::default(), toml);
        for cut in 0..=input.len() {
            let result = convert(
                &plan,
                &Source::default(),
                Failing(&input[..cut]),
                io::sink(),
            );
            assert!(
                matches!(result, Err(ConvertError::Read(ref e)) if e.kind() == io::ErrorKind::UnexpectedEof),
                "{cut}: {result:?}"
            );
        }
    }
    struct Full;
    impl Write for Full {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(io::ErrorKind::StorageFull.into())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let result = convert(
        &plan_within(Limits::default(), NSX),
        &Source::default(),
        nsx(3).as_bytes(),
        Full,
    );
    assert!(matches!(result, Err(ConvertError::Write(_))));
}

#[test]
fn input_arriving_byte_by_byte_gives_the_same_output() {
    struct Trickle<'a>(&'a [u8], bool);
    impl Read for Trickle<'_> {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            self.1 = !self.1;
            if self.1 {
                return Err(io::ErrorKind::Interrupted.into());
            }
            let end = buffer.len().min(1);
            self.0.read(&mut buffer[..end])
        }
    }
    let plan = plan_within(Limits::default(), NSX);
    let plain = nsx(20);
    for input in [plain.as_bytes(), &gzip(plain.as_bytes())] {
        assert_eq!(
            run(&plan, Trickle(input, false)).unwrap(),
            converted(NSX, &plain)
        );
    }
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn nsx(items: usize) -> String {
    let item = |n: usize| {
        format!(
            "<nsx:item id=\"{n}\"><nsx:category>A &amp; B</nsx:category><!-- c --><nsx:description><![CDATA[<p>æ {n}</p>]]></nsx:description>\
             <nsx:images><nsx:image type=\"{}\" url=\"u&amp;{n}\"/></nsx:images></nsx:item>\n",
            n % 5 + 1
        )
    };
    format!(
        "<?xml version=\"1.0\"?>\n<nsx:items>\n{}</nsx:items>\n",
        (0..items).map(item).collect::<String>()
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn any_bytes_give_an_output_or_a_named_reason(bytes: Vec<u8>, pick in 0..4usize) {
        let toml = ["", NSX, "format = 'xml'", "format = 'json'"][pick];
        let _ = run(&plan_within(SMALL, toml), &*bytes);
    }

    #[test]
    fn any_markup_gives_an_output_or_a_named_reason(
        pieces in prop::collection::vec(prop::sample::select(vec![
            "<", ">", "<a>", "</a>", "<a x='1'>", "<b/>", "<!--", "-->", "<![CDATA[", "]]>", "<!DOCTYPE a", "[", "]", "<!ENTITY", "<?", "?>", "&", ";", "&amp;", "&#",
            "#", "x", "'", "\"", "=", " ", "\n", "\r", "xmlns:g='u'", "g:a", "/", "!", "-", "\0", "é", "{", "}", ",", ":", "\"k\"", "1", "\\u", "d83d",
        ]), 0..40),
        pick in 0..3usize,
    ) {
        let toml = ["", "record = 'a/b'\nnamespaces = { g = 'u' }\nfields = { x = 'g:a', y = { each = 'b' } }", "format = 'json_lines'"][pick];
        if let Ok(output) = run(&plan_within(SMALL, toml), pieces.concat().as_bytes()) {
            prop_assert!(serde_json::Deserializer::from_str(&output).into_iter::<serde_json::Value>().all(|value| value.is_ok()), "{}", output);
        }
    }

    #[test]
    fn a_file_cut_anywhere_is_never_taken_for_a_shorter_one(items in 1..6usize, at in 0.0..1.0f64, zipped: bool, whole: bool) {
        let xml = nsx(items);
        let toml = if whole { "" } else { NSX };
        let input = if zipped { gzip(xml.as_bytes()) } else { xml.trim_end().as_bytes().to_vec() };
        let cut = (input.len() as f64 * at) as usize;
        prop_assert!(run(&plan_within(Limits::default(), toml), &input[..cut]).is_err());
        prop_assert_eq!(lines(toml, &input).len(), items);
    }

    #[test]
    fn any_json_survives_whole_conversion(json in any_json(), pretty: bool) {
        let text = if pretty { serde_json::to_string_pretty(&json) } else { serde_json::to_string(&json) }.unwrap();
        let output = lines("", format!("[{text}]"));
        prop_assert_eq!(&output[0], &json.to_string());
    }
}

fn any_json() -> impl Strategy<Value = serde_json::Value> {
    use serde_json::Value;
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<String>().prop_map(Value::from),
    ];
    leaf.prop_recursive(6, 64, 8, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..8).prop_map(Value::from),
            prop::collection::vec((any::<String>(), inner), 0..8)
                .prop_map(|members| Value::Object(members.into_iter().collect())),
        ]
    })
}
