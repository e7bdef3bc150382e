//! CSV and TSV, converted whole and by `fields`.

use super::*;

#[test]
fn rows_become_objects_of_strings_in_the_order_of_the_columns() {
    let expected = [
        r#"{"id":"1","Product Name":"Lamp, \"Moon\"","text":"two\nlines"}"#,
        r#"{"id":"007","Product Name":"","text":" x "}"#,
    ];
    let csv = "id,Product Name,text\r\n1,\"Lamp, \"\"Moon\"\"\",\"two\nlines\"\r\n\r\n007,, x ";
    for toml in ["", "format = 'csv'", "csv = { delimiter = ',' }"] {
        assert_eq!(lines(toml, csv), expected, "{toml}");
        assert_eq!(lines(toml, format!("\u{feff}{csv}\r\n")), expected);
    }
    let tsv = csv.replace("\"Lamp, \"\"Moon\"\"\"", "\"Lamp\t\"\"Moon\"\"\"");
    let tsv = tsv.replace(',', "\t").replace("Lamp\t\"\"", "Lamp, \"\"");
    assert_eq!(lines("format = 'tsv'", &tsv), expected);
    assert_eq!(lines("", &tsv), expected);
}

#[test]
fn a_dialect_that_is_given_is_followed() {
    let toml = "format = 'csv'\ncsv = { delimiter = '^', quote = '~', comment = '#', trim = true }";
    let csv = "# made by hand\na ^ b\n\n 1 ^~x^y\n#z~\n#2^3\n";
    assert_eq!(lines(toml, csv), [r##"{"a":"1","b":"x^y\n#z"}"##]);
    let toml = "format = 'csv'\ncsv = { quote = '', delimiter = ',' }";
    assert_eq!(
        lines(toml, "a,b\n\"x,12\" tall\n"),
        [r#"{"a":"\"x","b":"12\" tall"}"#]
    );
    assert_eq!(
        lines("", "'a';'b'\n'1;2';'it''s'\n"),
        [r#"{"a":"1;2","b":"it's"}"#]
    );
}

#[test]
fn the_line_that_excel_writes_first_is_no_row() {
    let csv = "sep=|\r\na;b|c\r\n1;2|3\r\n";
    let piped = [r#"{"a;b":"1;2","c":"3"}"#];
    for toml in [
        "",
        "format = 'csv'",
        "format = 'csv'\ncsv = { quote = '\"' }",
    ] {
        assert_eq!(lines(toml, csv), piped, "{toml}");
        assert_eq!(lines(toml, format!("\u{feff}{csv}")), piped, "{toml}");
    }
    let given = "csv = { delimiter = ';' }\nformat = 'csv'";
    assert_eq!(lines(given, csv), [r#"{"a":"1","b|c":"2|3"}"#]);
    let ragged = rejected("", "sep=;\na;b\n1;2\n3\n");
    assert_eq!((ragged.reason, ragged.line), (Reason::RaggedRow, Some(4)));
    assert_eq!(
        rejected("format = 'csv'", "sep=;\n").reason,
        Reason::EmptyFile
    );
}

#[test]
fn names_of_columns_can_come_from_the_feed() {
    let columns = "columns = ['id', 'name']";
    let toml = format!("format = 'csv'\ncsv = {{ header = false, {columns} }}");
    assert_eq!(lines(&toml, "1,x\n"), [r#"{"id":"1","name":"x"}"#]);
    let toml = format!("csv = {{ {columns} }}");
    assert_eq!(lines(&toml, "a;a\n1;x\n"), [r#"{"id":"1","name":"x"}"#]);
}

#[test]
fn a_header_whose_names_cannot_be_keys_is_refused() {
    let reason = |toml: &str, csv: &str| {
        let rejection = rejected(toml, csv);
        assert_eq!((rejection.record, rejection.line), (None, Some(1)));
        rejection.reason
    };
    assert_eq!(reason("", "a,b,a\n1,2,3\n"), Reason::DuplicateColumn);
    assert_eq!(reason("", "a,,b\n1,2,3\n"), Reason::UnnamedColumn);
    let trim = "csv = { trim = true }";
    assert_eq!(reason(trim, "a, a\n1,2\n"), Reason::DuplicateColumn);
    assert_eq!(reason(trim, "a, \n1,2\n"), Reason::UnnamedColumn);
    let long = format!("a,{}\n1,2\n", "x".repeat(2_000));
    assert_eq!(reason("", &long), Reason::NameTooLong);
    let columns = "csv = { columns = ['a'] }";
    assert_eq!(reason(columns, "a,b\n1,2\n"), Reason::RaggedRow);
    assert_eq!(
        reason("fields = { x = 'price' }", "a,b\n1,2\n"),
        Reason::UnknownColumns
    );
    let comments = "format = 'csv'\ncsv = { comment = '#' }";
    assert_eq!(rejected(comments, "# a\n").reason, Reason::EmptyFile);
}

#[test]
fn a_row_is_shown_the_same_whichever_way_it_was_read() {
    // A line without quotes is a row as it stands; any other goes through the parser.
    for row in [",x,", "\"\",x,", ",\"x\","] {
        let ragged = rejected("format = 'csv'", format!("a,b\n1,2\n{row}\n"));
        assert_eq!(ragged.excerpt.as_deref(), Some(",x,"), "{row}");
    }
}

#[test]
fn a_row_of_another_length_is_refused_with_its_place() {
    let csv = "a;b\r\n\"1\r\n2\";x\r\n\r\n3;y;\"z\r\n\"\r\n4;u\r\n";
    let ragged = rejected("format = 'csv'", csv);
    assert_eq!((ragged.reason, ragged.record), (Reason::RaggedRow, Some(2)));
    assert_eq!((ragged.line, ragged.column), (Some(5), Some(1)));
    assert_eq!(ragged.byte_offset, Some(csv.find("3;").unwrap() as u64));
    assert_eq!(ragged.excerpt.as_deref(), Some("3;y;z"));
    assert_eq!(
        ragged.message,
        "the row has 3 cells, and there are 2 columns"
    );
    let comments = "csv = { comment = '#', delimiter = ',' }\nformat = 'csv'";
    let ragged = rejected(comments, "# x\na,b\n1,2\n# y\n\n# z\n3\n");
    assert_eq!((ragged.record, ragged.line), (Some(2), Some(7)));
}

#[test]
fn quotes_that_never_close_are_refused_where_they_open() {
    for (csv, is_open) in [
        ("a,b\n1,\"x", true),
        ("a,b\n1,\"x\n2,y\n", true),
        ("a,b\n1,\"", true),
        ("a,b\n1,\"x\"\"", true),
        ("a,b\n1,\"x\"", false),
        ("a,b\n1,\"\"", false),
        ("a,b\n1,x\"", false),
    ] {
        let toml = "format = 'csv'";
        if !is_open {
            assert_eq!(lines(toml, csv).len(), 1, "{csv}");
            continue;
        }
        let rejection = rejected(toml, csv);
        assert_eq!(rejection.reason, Reason::MalformedCsv, "{csv}");
        assert_eq!((rejection.record, rejection.line), (Some(1), Some(2)));
    }
    assert_eq!(
        rejected("format = 'csv'", "\"a,b\n1,2\n").reason,
        Reason::MalformedCsv
    );
}

#[test]
fn bytes_that_are_not_utf_8_are_refused_also_when_two_cells_make_a_character() {
    for csv in [&b"a,b\n1,\xe6\n"[..], b"a,b\n\xc3,\xa6\n", b"a,\xe6\n1,2\n"] {
        for toml in ["", "fields = { x = 'a', y = 'b' }"] {
            let toml = format!("format = 'csv'\n{toml}");
            assert_eq!(rejected(&toml, csv).reason, Reason::InvalidEncoding);
        }
    }
}

#[test]
fn fields_name_columns_and_an_empty_cell_is_a_missing_value() {
    let toml = r#"
        format = "csv"
        [fields]
        id = "Variant SKU"
        price = { path = "Variant Price", type = "decimal", required = true }
        gender = "Google Shopping / Gender"
        path = "a/b"
        vendor = { path = "Vendor", default = "none" }
        options = { fields = { first = "Option1 Value", second = { path = "Option2 (Value)", trim = true } } }
        tags = { each = "Tags" }
        at = "@at"
    "#;
    let csv = "skip,Variant SKU,Variant Price,Google Shopping / Gender,a/b,Vendor,Option1 Value,Option2 (Value),Tags,@at\n\
               x,7,079.90,f,p,Acme,red, L ,t,z\n\
               ,8,1,,,,,,,\n";
    assert_eq!(
        lines(toml, csv),
        [
            r#"{"id":"7","price":79.90,"gender":"f","path":"p","vendor":"Acme","options":{"first":"red","second":"L"},"tags":["t"],"at":"z"}"#,
            r#"{"id":"8","price":1,"gender":null,"path":null,"vendor":"none","options":{"first":null,"second":null},"tags":[],"at":null}"#,
        ]
    );
    let missing = rejected(
        "format = 'csv'\nfields = { p = { path = 'a/p', required = true } }",
        "id,a/p\n1,2\n\n2,\n",
    );
    assert_eq!(
        (missing.reason, missing.path.as_deref(), missing.record),
        (Reason::MissingField, Some("a/p"), Some(2))
    );
    assert_eq!((missing.line, missing.column), (Some(4), Some(1)));
    let wrong = rejected(
        "fields = { p = { path = 'p', type = 'integer' } }",
        "id,p\n1,x\n",
    );
    assert_eq!(
        (wrong.reason, wrong.excerpt.as_deref()),
        (Reason::InvalidValue, Some("x"))
    );
    let record = rejected("fields = { p = '.' }", "id,p\n1,x\n");
    assert_eq!(record.reason, Reason::InvalidValue);
}

#[test]
fn columns_of_one_path_keep_apart() {
    let csv = "a,a/b,a/b/c\n1,2,3\n";
    let toml = "fields = { a = 'a', b = 'a/b', c = 'a/b/c' }";
    assert_eq!(lines(toml, csv), [r#"{"a":"1","b":"2","c":"3"}"#]);
    assert_eq!(
        lines("fields = { b = 'a/b' }", csv),
        [r#"{"b":"2"}"#],
        "the column `a` is not asked for"
    );
}

#[test]
fn a_file_with_no_rows_but_the_header_has_no_records() {
    assert_eq!(converted("format = 'csv'", "a;b\n"), "[\n]\n");
    assert_eq!(
        lines("format = 'csv'", "id\n1\n\n2"),
        [r#"{"id":"1"}"#, r#"{"id":"2"}"#]
    );
    assert_eq!(rejected("", "a;b\n").reason, Reason::UnknownFormat);
    assert_eq!(
        rejected("record = 'a/b'", "a;b\n1;2\n").reason,
        Reason::UnknownFormat
    );
}

#[test]
fn rows_are_bounded_like_any_record() {
    let limits = Limits {
        record_bytes: 10_000,
        ..Limits::default()
    };
    let reason = |csv: String| {
        let rejection = rejected_within(limits.clone(), "format = 'csv'", csv.as_bytes());
        (rejection.reason, rejection.record)
    };
    let row = |cell: &str| format!("a,b\n1,2\n{cell}\n");
    assert_eq!(
        reason(row(&"x".repeat(20_000))),
        (Reason::RecordTooLarge, Some(2))
    );
    assert_eq!(
        reason(row(&",".repeat(9_000))),
        (Reason::RecordTooLarge, Some(2)),
        "small in the file, large in between"
    );
    assert_eq!(
        reason(row(&format!("\"{}", "x\n".repeat(20_000)))),
        (Reason::RecordTooLarge, Some(2))
    );
    let comment = format!("#{}\na,b\n1,2\n", "x".repeat(50_000));
    let plan = plan_within(limits.clone(), "format = 'csv'\ncsv = { comment = '#' }");
    assert!(run(&plan, comment.as_bytes()).is_ok());
}

#[test]
fn a_line_without_quotes_is_the_same_row_as_one_with_them() {
    let cells = ["", "a", "søkker, größer", " x ", "\u{2028}", "7"];
    let plain = |delimiter: &str, end: &str| {
        let mut csv = ["a", "b", "c"].join(delimiter) + end;
        for first in cells {
            for second in cells {
                csv += &[first, "1", second].join(delimiter);
                csv += end;
            }
        }
        csv
    };
    for (delimiter, end) in [(";", "\n"), ("|", "\r\n"), ("\t", "\r")] {
        let toml = format!(
            "format = 'csv'\ncsv = {{ delimiter = \"{}\" }}",
            delimiter.escape_default()
        );
        let csv = plain(delimiter, end);
        // Quoted here and there: the parser takes turns with what is faster.
        let quoted = csv.replace(
            &format!("{delimiter}1{delimiter}a"),
            &format!("{delimiter}\"1\"{delimiter}a"),
        );
        assert_ne!(csv, quoted);
        let rows = lines(&toml, &csv);
        assert_eq!(rows.len(), cells.len() * cells.len());
        assert_eq!(rows, lines(&toml, &quoted));
        assert!(rows[7..].contains(&r#"{"a":"a","b":"1","c":"søkker, größer"}"#.to_owned()));
        let fields = "[fields]\nc = 'c'\na = 'a'";
        assert_eq!(
            lines(&format!("{toml}\n{fields}"), &csv),
            lines(&format!("{toml}\n{fields}"), &quoted)
        );
    }
}
