//! Each limit reached exactly, and passed by one. Those on zips and on containers in one another are tested beside the containers, those
//! on jq beside the steps.

use super::packing::{ZipEntry, gzip, zip, zstd_with_window};
use super::*;
use crate::feed::limits::{MAX_DEPTH, RATIO_FLOOR_BYTES};

/// Changes one of the limits.
type Set = fn(&mut Limits, usize);

/// Makes an input with so many of what is limited.
type Make<'m, T = String> = &'m dyn Fn(usize) -> T;

/// `fitting` has what the limit of `most` allows, `passing` one more.
#[track_caller]
fn assert_bites(
    set: Set,
    most: usize,
    toml: &str,
    fitting: impl AsRef<[u8]>,
    passing: impl AsRef<[u8]>,
    reason: Reason,
) {
    let mut limits = Limits::default();
    set(&mut limits, most);
    let plan = plan_within(limits, toml);
    let fits = run(&plan, fitting.as_ref());
    assert!(fits.is_ok(), "{toml}: {fits:?}");
    let passes = run(&plan, passing.as_ref()).map_err(|rejection| rejection.reason);
    assert_eq!(passes, Err(reason), "{toml}");
}

#[test]
fn records_are_counted_in_every_format() {
    let records: Set = |limits, most| limits.records = most as u64;
    let many = Reason::TooManyRecords;
    let cases: [(&str, Make); 6] = [
        ("", &|count| format!("<r>{}</r>", "<p/>".repeat(count))),
        ("", &|count| format!("[{}1]", "1,".repeat(count - 1))),
        ("", &|count| "{}\n".repeat(count)),
        ("format = 'csv'", &|count| {
            format!("a\n{}", "1\n".repeat(count))
        }),
        ("output = 'pretty'", &|count| {
            format!("<r>{}</r>", "<p/>".repeat(count))
        }),
        ("jq = '.'", &|count| {
            format!("<r>{}</r>", "<p/>".repeat(count))
        }),
    ];
    for (toml, make) in cases {
        assert_bites(records, 3, toml, make(3), make(4), many);
    }
}

#[test]
fn records_that_are_left_out_count_too() {
    let records: Set = |limits, most| limits.records = most as u64;
    let toml = "max_rejected = 10\nfields = { a = { path = 'a', required = true } }";
    let xml = |count: usize| format!("<r>{}</r>", "<p/>".repeat(count));
    let json = |count: usize| format!("[{}1]", "1,".repeat(count - 1));
    assert_bites(records, 3, toml, xml(3), xml(4), Reason::TooManyRecords);
    assert_bites(records, 3, toml, json(3), json(4), Reason::TooManyRecords);
    let ragged = |count: usize| format!("a,b\n{}", "1\n".repeat(count));
    let toml = "max_rejected = 10\nformat = 'csv'\ncsv = { delimiter = ',' }";
    assert_bites(
        records,
        3,
        toml,
        ragged(3),
        ragged(4),
        Reason::TooManyRecords,
    );
}

#[test]
fn the_record_that_is_one_too_many_is_named() {
    let limits = Limits {
        records: 2,
        ..Limits::default()
    };
    let rejection = rejected_within(limits, "", &b"<r>\n<p/>\n<p/>\n<p/></r>"[..]);
    assert_eq!((rejection.record, rejection.line), (Some(3), Some(4)));
}

#[test]
fn a_text_is_measured_as_what_it_stands_for() {
    let text_bytes: Set = |limits, most| limits.text_bytes = most;
    let x = |count| "x".repeat(count);
    let xml = |text: String| format!("<r><p><a>{text}</a></p></r>");
    let cases: [(&str, Make); 9] = [
        ("", &|count| xml(x(count))),
        ("fields = { a = 'a' }", &|count| xml(x(count))),
        ("fields = { b = 'b' }", &|count| xml(x(count))),
        ("", &|count| {
            xml(format!("&lt;<!-- c -->&#233;<![CDATA[{}]]>", x(count - 3)))
        }),
        ("", &|count| {
            format!("<r><p a='&amp;{}'/></r>", x(count - 1))
        }),
        ("", &|count| {
            format!(r#"[{{"a":"\u00e9{}"}}]"#, x(count - 2))
        }),
        ("format = 'json'\nfields = { a = 'a' }", &|count| {
            format!(r#"[{{"a":"\n{}"}}]"#, x(count - 1))
        }),
        ("", &|count| format!("[{}]", "9".repeat(count))),
        ("format = 'csv'", &|count| {
            format!("a,b\n1,\"{}\"\"\"\n", x(count - 1))
        }),
    ];
    for (toml, make) in cases {
        assert_bites(
            text_bytes,
            10,
            toml,
            make(10),
            make(11),
            Reason::TextTooLong,
        );
    }
    // Two texts are not one.
    let limits = Limits {
        text_bytes: 10,
        ..Limits::default()
    };
    let two = format!("<r><p>{0}<a/>{0}<a>{0}</a>{0}</p></r>", x(10));
    assert!(run(&plan_within(limits, ""), two.as_bytes()).is_ok());
}

#[test]
fn depth_counts_the_root() {
    let depth: Set = |limits, most| limits.depth = most;
    let xml = |count: usize| "<a>".repeat(count) + &"</a>".repeat(count);
    let json = |count: usize| "[".repeat(count) + &"]".repeat(count);
    for toml in ["", "fields = { x = 'x' }"] {
        assert_bites(depth, 5, toml, xml(5), xml(6), Reason::TooDeep);
    }
    assert_bites(depth, 5, "", json(5), json(6), Reason::TooDeep);
}

#[test]
fn the_highest_depth_fits_on_the_stack_of_a_thread() {
    let depth: Set = |limits, most| limits.depth = most;
    let deep = Reason::TooDeep;
    let nested = |open: &str, close: &str, count: usize| open.repeat(count) + &close.repeat(count);
    let xml = |count| nested("<a>", "</a>", count);
    let arrays = |count| nested("[", "]", count);
    let objects = |count| {
        format!(
            "[{}]",
            nested("{\"a\":", "}", count - 1).replace(":}", ":1}")
        )
    };
    let most = MAX_DEPTH;
    for toml in [
        "",
        "fields = { a = { each = 'a' } }",
        "jq = '.'",
        "schema = {}",
    ] {
        assert_bites(depth, most, toml, xml(most), xml(most + 1), deep);
    }
    for toml in ["", "jq = '.'", "schema = {}"] {
        assert_bites(depth, most, toml, arrays(most), arrays(most + 1), deep);
        assert_bites(depth, most, toml, objects(most), objects(most + 1), deep);
    }
    let beside = |count| format!("[{{\"a\":{}}}]", arrays(count - 2));
    let toml = "fields = { a = { each = 'a' } }";
    assert_bites(depth, most, toml, beside(most), beside(most + 1), deep);
}

#[test]
fn attributes_and_the_namespaces_in_force_are_counted() {
    let attributes: Set = |limits, most| limits.attributes = most;
    let many = Reason::TooManyAttributes;
    let xml = |count: usize| {
        let attributes: String = (0..count).map(|n| format!(" a{n}=''")).collect();
        format!("<r><p{attributes}/></r>")
    };
    for most in [5, 20] {
        assert_bites(attributes, most, "", xml(most), xml(most + 1), many);
    }
    let nested = |count: usize| {
        let open: String = (0..count).map(|n| format!("<a xmlns:n{n}='u'>")).collect();
        format!("{open}<a/>{}", "</a>".repeat(count))
    };
    let toml = "namespaces = { g = 'u' }";
    assert_bites(attributes, 5, toml, nested(5), nested(6), many);
    // One after the other they are not in force together.
    let siblings = format!("<r>{}</r>", "<a xmlns:n='u'/>".repeat(20));
    assert_bites(attributes, 5, toml, siblings, nested(6), many);
}

#[test]
fn names_of_every_kind_are_bounded() {
    let name_bytes: Set = |limits, most| limits.name_bytes = most;
    let n = |count: usize| "n".repeat(count);
    let cases: [(&str, Make<Vec<u8>>); 5] = [
        ("", &|count| format!("<r><{}/></r>", n(count)).into()),
        ("", &|count| format!("<r><p {}=''/></r>", n(count)).into()),
        ("", &|count| format!(r#"[{{"{}":1}}]"#, n(count)).into()),
        ("format = 'csv'", &|count| {
            format!("{},b\n", n(count)).into()
        }),
        ("", &|count| zip(&[ZipEntry::new(n(count), b"<r/>")])),
    ];
    for (toml, make) in cases {
        assert_bites(name_bytes, 9, toml, make(9), make(10), Reason::NameTooLong);
    }
}

#[test]
fn a_record_is_measured_where_it_stands_and_as_json() {
    let record_bytes: Set = |limits, most| limits.record_bytes = most;
    let large = Reason::RecordTooLarge;
    let x = |count: usize| "x".repeat(count);
    let xml = |count: usize| format!("<r><p>{}</p></r>", x(count - 7));
    let toml = "fields = { a = 'b' }";
    assert_bites(record_bytes, 500, toml, xml(500), xml(501), large);
    let json = |count: usize| format!(r#"[ {{"a":"{}"}} ]"#, x(count - 8));
    assert_bites(record_bytes, 500, "", json(500), json(501), large);
    // Six bytes each as JSON.
    let csv = |count: usize| format!("a\n{}\n", "\u{1}".repeat((count - 8) / 6));
    let toml = "format = 'csv'";
    assert_bites(record_bytes, 500, toml, csv(500), csv(506), large);
}

#[test]
fn the_columns_of_a_header_are_charged_to_the_record() {
    let record_bytes: Set = |limits, most| limits.record_bytes = most;
    let header = |count: usize| {
        let names: Vec<_> = (0..count).map(|n| format!("c{n}")).collect();
        names.join(",") + "\n"
    };
    for toml in ["format = 'csv'", "format = 'csv'\nfields = { a = 'c0' }"] {
        assert_bites(
            record_bytes,
            128 * 100,
            toml,
            header(100),
            header(101),
            Reason::RecordTooLarge,
        );
    }
    // Small in the file, large as keys.
    let names: Vec<_> = (0..9)
        .map(|n| "\u{1}".repeat(200) + &n.to_string())
        .collect();
    let toml = "format = 'csv'";
    let (few, many) = (names[..8].join(",") + "\n", names.join(",") + "\n");
    assert_bites(record_bytes, 9_655, toml, few, many, Reason::RecordTooLarge);
}

#[test]
fn a_file_is_measured_after_decompression() {
    let file_bytes: Set = |limits, most| limits.file_bytes = most as u64;
    let xml = |count: usize| format!("<r>{}</r>", " ".repeat(count - 7));
    let large = Reason::FileTooLarge;
    assert_bites(file_bytes, 500, "", xml(500), xml(501), large);
    let packed = |count| gzip(xml(count).as_bytes());
    assert_bites(file_bytes, 500, "", packed(500), packed(501), large);
}

#[test]
fn a_ratio_is_unfair_from_the_first_byte_beyond_it() {
    let spaces = " ".repeat(1 << 20);
    let xml = format!(
        "<r>{}</r>",
        format!("{spaces}<p/>").repeat((RATIO_FLOOR_BYTES >> 20) as usize + 1)
    );
    let packed = gzip(xml.as_bytes());
    let fair = xml.len().div_ceil(packed.len());
    let ratio = |ratio: usize| Limits {
        decompression_ratio: ratio as u64,
        ..Limits::default()
    };
    assert!(run(&plan_within(ratio(fair), ""), &*packed).is_ok());
    assert_eq!(
        rejected_within(ratio(fair - 1), "", &*packed).reason,
        Reason::DecompressionRatio
    );
}

#[test]
fn a_decompressor_gets_the_memory_that_the_limit_allows() {
    let memory: Set = |limits, most| limits.decompressor_bytes = most as u64;
    let packed = |log| zstd_with_window(b"<r/>", log);
    let reason = Reason::DecompressorMemory;
    assert_bites(memory, 1 << 20, "", packed(20), packed(21), reason);
}

#[test]
fn gaps_are_filled_up_to_a_number() {
    let gap: Set = |limits, most| limits.gap = most as u32;
    let toml = "fields = { a = { each = 'i', key = 'i{.}', value = '.', fill_gaps = true } }";
    let xml = |number: usize| format!("<r><p><i>{number}</i></p></r>");
    assert_bites(gap, 7, toml, xml(7), xml(8), Reason::InvalidValue);
}
