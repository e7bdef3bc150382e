//! How samples are read: formats and dialects, containers and encodings, and how much of them.

use super::*;

#[test]
fn the_format_of_json_is_told_by_how_many_values_there_are() {
    for (text, format, count) in [
        (r#"[{"a": 1}, {"a": 2}]"#, Format::Json, 2),
        (r#"{"a": 1} {"a": 2} {"a": 3}"#, Format::JsonLines, 3),
        (r#"{"a": 1}"#, Format::JsonLines, 1),
        (r#"{"items": [{"a": 1}], "count": 1}"#, Format::Json, 1),
        // Each line a page of records: the lines are the records, for there may be many.
        (
            "{\"items\": [{\"a\": 1}, {\"a\": 2}]}\n{\"items\": []}",
            Format::JsonLines,
            2,
        ),
    ] {
        let toml = inferred(&[text.as_bytes()]);
        assert_eq!(spec(&toml).format, format, "{toml}");
        assert_eq!(records(&toml, text.as_bytes()).1.len(), count, "{toml}");
    }
    // However many records there are in each: there is no path into the lines.
    let page = format!("{{\"items\": [{}]}}\n", ["{\"a\": 1}"; 20].join(","));
    let toml = inferred(&[page.repeat(2).as_bytes()]);
    assert_eq!(record_path(&toml), None);
    assert_eq!(records(&toml, page.repeat(2).as_bytes()).1.len(), 2);

    let toml = inferred(&[br#"{"a": 1}"#, br#"{"a": 2} {"a": 3}"#]);
    assert_eq!(spec(&toml).format, Format::JsonLines);
    let error = survey(EVERYTHING, &[b"[1] [2]"]).err().unwrap();
    assert!(
        matches!(error, InferError::Convert(ConvertError::Rejected(rejection)) if rejection.reason == Reason::MalformedJson)
    );
}

#[test]
fn csv_is_read_in_its_own_dialect() {
    let csv = "Product ID; Name ;Price;a/b\n007;'A;B';1.50;x\n008;'C''s';2.00;y\n009;'D\nE';3;z\n";
    let toml = inferred(&[csv.as_bytes()]);
    let csv_spec = spec(&toml).csv;
    assert_eq!(
        (csv_spec.delimiter, csv_spec.quote.as_deref(), csv_spec.trim),
        (Some(';'), Some("'"), true)
    );
    let (_, values) = records(&toml, csv.as_bytes());
    assert_eq!(
        values[0].to_string(),
        r#"{"product_id":"007","name":"A;B","price":1.50,"a_b":"x"}"#
    );
    assert_eq!(values[2]["name"], "D\nE");
}

#[test]
fn columns_that_no_path_can_name_are_renamed() {
    let csv = "id,,id,price [EUR],*,@x,.\n1,2,3,4,5,6,7\n1,2,3,4,5,6,7\n";
    let toml = inferred(&[csv.as_bytes()]);
    assert!(toml.contains("renamed in csv.columns"), "{toml}");
    assert_eq!(
        spec(&toml).csv.columns,
        [
            "id",
            "column_2",
            "id_2",
            "price_eur",
            "column_5",
            "x",
            "column_7"
        ]
    );
    let (_, values) = records(&toml, csv.as_bytes());
    assert_eq!(values.len(), 2);
    assert_eq!(values[0]["price_eur"], "4");
    assert_eq!(values[0]["column_7"], "7");
}

#[test]
fn rows_of_another_length_are_told() {
    let csv = "id,name\n1,a\n2\n3,c\n";
    let options = Options {
        format: Format::Csv,
        ..EVERYTHING
    };
    let toml = survey(options, &[csv.as_bytes()])
        .unwrap()
        .write(&target(false));
    assert!(
        toml.contains(
            "# 1 row without a cell for each column, the first in line 3: rejected (ragged_row)"
        ),
        "{toml}"
    );
    assert!(toml.contains("2 records."), "{toml}");
    let toml = inferred(&[b"4711,Kettle\n4712,Toaster\n"]);
    assert!(toml.contains("csv.header = false"), "{toml}");
}

#[test]
fn a_long_file_is_read_until_there_is_enough() {
    let item = format!(
        "<item><id>1</id><text>{}</text><end>1</end></item>",
        "x".repeat(10_000)
    );
    let mut xml = format!(
        "<r><old>{}</old><items>",
        "<entry><a>1</a></entry>".repeat(200)
    );
    let per_16_mib = (LOOK_BYTES as usize).div_ceil(item.len());
    xml.push_str(&item.repeat(3 * per_16_mib));
    let options = Options {
        records: 100,
        ..EVERYTHING
    };
    // It is cut in the middle, which nobody gets to see.
    let toml = survey(options, &[xml.as_bytes()])
        .unwrap()
        .write(&target(false));
    assert_eq!(
        record_path(&toml).as_deref(),
        Some("r/items/item"),
        "a short list before is not taken for the records"
    );
    assert!(
        toml.contains("Only the beginning was read of sample-0."),
        "{toml}"
    );
    let seen: u64 = toml
        .split(" records.")
        .next()
        .unwrap()
        .rsplit(' ')
        .next()
        .unwrap()
        .parse()
        .unwrap();
    assert!((100..2 * per_16_mib as u64).contains(&seen), "{seen}");
    let whole = format!("{seen} of {seen}");
    assert_eq!(
        toml.matches(&whole).count(),
        3,
        "no record is counted in part: {toml}"
    );

    let all = survey(EVERYTHING, &[xml.as_bytes()]).err().unwrap();
    assert!(
        all.to_string().contains("sample"),
        "the cut is seen by who reads on"
    );
}

#[test]
fn files_of_json_and_csv_are_left_early_too() {
    let options = || Options {
        records: 100,
        ..EVERYTHING
    };
    let text = "x".repeat(10_000);
    let count = 2 * (LOOK_BYTES as usize).div_ceil(text.len());
    for (before, record) in [
        (
            "{\"items\": [{\"a\": 1}".to_owned(),
            format!(",{{\"a\": \"{text}\"}}"),
        ),
        (String::new(), format!("{{\"a\": \"{text}\"}}\n")),
        ("a,b\n".to_owned(), format!("1,{text}\n")),
    ] {
        let sample = before + &record.repeat(count);
        let toml = survey(options(), &[sample.as_bytes()])
            .unwrap()
            .write(&target(false));
        assert!(toml.contains("Only the beginning was read"), "{toml}");
    }
}

#[test]
fn one_feed_is_learned_from_several_files_of_one_format() {
    let toml = inferred(&[
        b"<r><item><a>1</a></item></r>",
        b"<r><item><b>2</b></item><item/></r>",
    ]);
    assert!(
        toml.contains("# Inferred from sample-0, sample-1: XML, UTF-8, 3 records."),
        "{toml}"
    );
    assert_eq!(fields(&toml).keys().collect::<Vec<_>>(), ["a", "b"]);
    let error = survey(EVERYTHING, &[b"<r/>", b"[]"]).err().unwrap();
    assert_eq!(
        error.to_string(),
        "learn one feed from files of several formats: XML and JSON"
    );
}

#[test]
fn containers_and_encodings_are_those_of_conversion() {
    use crate::feed::tests::packing::{ZipEntry, gzip, zip};
    let xml = b"<?xml version='1.0' encoding='windows-1251'?><r><item><a>\xcf</a></item><item><a>b</a></item></r>";
    let packed = gzip(&zip(&[
        ZipEntry::new("a.xml", xml),
        ZipEntry::new("b.xml", xml),
    ]));
    let toml = inferred(&[&packed]);
    assert!(toml.contains("XML, windows-1251, 4 records."), "{toml}");
    assert_eq!(records(&toml, &packed).1[0], json!({"a": "П"}));

    let csv = b"name,town\nJ\xf8rn,\xc5s\nA,B\n";
    let error = survey(EVERYTHING, &[csv]).err().unwrap();
    assert!(
        matches!(error, InferError::Convert(ConvertError::Rejected(rejection)) if rejection.reason == Reason::InvalidEncoding)
    );
    let options = Options {
        encoding: Some("windows-1252".to_owned()),
        ..EVERYTHING
    };
    let toml = survey(options, &[csv]).unwrap().write(&target(false));
    assert_eq!(
        records(&toml, csv).1[0],
        json!({"name": "Jørn", "town": "Ås"})
    );
}

#[test]
fn a_header_of_any_width_is_read_in_time() {
    let wide =
        |columns: usize, name: &str| format!("{0}\n{0}\n{0}\n", vec![name; columns].join(","));
    let infer = |columns| {
        let options = Options {
            format: Format::Csv,
            ..EVERYTHING
        };
        survey(options, &[wide(columns, "a").as_bytes()])
    };
    let toml = infer(30_000).unwrap().write(&target(false));
    assert_eq!(fields(&toml).len(), 30_000);
    let error = infer(100_000).err().unwrap();
    assert!(
        matches!(error, InferError::Convert(ConvertError::Rejected(rejection)) if rejection.reason == Reason::RecordTooLarge)
    );
}
