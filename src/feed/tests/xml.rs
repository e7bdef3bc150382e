//! XML, converted whole and by `fields`.

use super::*;

#[test]
fn a_record_converted_whole_keeps_attributes_text_and_repetition() {
    let xml = r#"<items>
        <item id="1" lang='da'>
          <name>Søkker &amp; <![CDATA[<b>hue</b>]]> &#x1F600;</name>
          <tag>a</tag><size unit="cm">40</size><tag/>
          <note>see <i>this</i> here</note>
        </item>
        <item>plain</item>
        <item/>
    </items>"#;
    let whole = lines("", xml);
    assert_eq!(
        whole[0],
        r##"{"@id":"1","@lang":"da","name":"Søkker & <b>hue</b> 😀","tag":["a",""],"size":{"@unit":"cm","#text":"40"},"note":{"#text":"see  here","i":"this"}}"##
    );
    assert_eq!(whole[1..], [r#""plain""#, r#""""#]);
}

#[test]
fn declared_arrays_are_arrays_with_one_element_too() {
    let xml = "<r><p><image>1</image><sub><image>2</image></sub><sub2><x>3</x></sub2></p></r>";
    assert_eq!(
        lines("arrays = ['image', 'sub2/x', 'sub2/image']", xml),
        [r#"{"image":["1"],"sub":{"image":["2"]},"sub2":{"x":["3"]}}"#]
    );
    let nested = "<r><p><sub2><image/></sub2><image/></p></r>";
    assert_eq!(
        lines("arrays = ['sub2/image']", nested),
        [r#"{"sub2":{"image":[""]},"image":""}"#]
    );
}

#[test]
fn text_that_is_interrupted_by_a_child_is_not_mixed_with_the_childs() {
    assert_eq!(
        lines("", "<r><p>a<q>b</q>c<q>d</q></p></r>"),
        [r##"{"#text":"ac","q":["b","d"]}"##]
    );
}

#[test]
fn fields_are_written_in_their_own_order_whatever_the_documents() {
    let xml = "<r><p k='7'><b>2</b><a>1</a></p></r>";
    assert_eq!(
        lines(
            "[fields]\na = 'a'\nnone = 'x/y'\nk = '@k'\nnested = { fields = { b = 'b' } }",
            xml
        ),
        [r#"{"a":"1","none":null,"k":"7","nested":{"b":"2"}}"#]
    );
}

#[test]
fn missing_lists_are_empty_and_missing_values_in_them_keep_their_place() {
    let toml = r#"
        [fields]
        list = { each = "l/i" }
        attributes = { each = "l/i", value = "@u" }
        objects = { each = "l/i", fields = { v = ".", u = "@u" } }
        keyed = { each = "l/i", key = "k-{@u}", value = "." }
    "#;
    let empty = r#"{"list":[],"attributes":[],"objects":[],"keyed":{}}"#;
    assert_eq!(lines(toml, "<r><p/></r>"), [empty]);
    assert_eq!(
        lines(
            toml,
            "<r><p><l><i u='x'>1</i><i u='x'>2</i></l><l><i u='y\"'/></l></p></r>"
        ),
        [
            r#"{"list":["1","2",""],"attributes":["x","x","y\""],"objects":[{"v":"1","u":"x"},{"v":"2","u":"x"},{"v":"","u":"y\""}],"keyed":{"k-x":"1","k-y\"":""}}"#
        ]
    );
    let missing_key = rejected(toml, "<r><p><l><i/></l></p></r>");
    assert_eq!(
        (missing_key.reason, missing_key.path.as_deref()),
        (Reason::MissingField, Some("r/p/l/i"))
    );
}

#[test]
fn lists_in_lists_belong_to_their_own_element() {
    let toml =
        "[fields]\nx = { each = 'a', fields = { n = '@n', ys = { each = 'b', value = '@v' } } }";
    let xml = "<r><p><a n='1'><b v='p'/><b v='q'/></a><a n='2'/><a><b/></a></p></r>";
    assert_eq!(
        lines(toml, xml),
        [r#"{"x":[{"n":"1","ys":["p","q"]},{"n":"2","ys":[]},{"n":null,"ys":[null]}]}"#]
    );
}

#[test]
fn of_repeated_values_the_first_counts_and_a_value_is_all_text_inside() {
    let toml = "[fields]\na = 'a'\nb = 'a/b'\nc = 'a/@c'";
    let xml = "<r><p><a>1<b>2</b>3<x c='no'>4</x></a><a c='C'><b>5</b></a></p></r>";
    assert_eq!(lines(toml, xml), [r#"{"a":"1234","b":"2","c":"C"}"#]);
}

#[test]
fn types_defaults_required_and_trim_do_what_they_say() {
    let toml = r#"
        [fields]
        price = { path = "price", type = "decimal", default = 0.5 }
        stock = { path = "stock", type = "integer" }
        new = { path = "new", type = "boolean", default = false }
        name = { path = "name", trim = true, required = true }
        raw = { path = "name", default = "-" }
        missing = { path = "nothing", default = "-" }
    "#;
    assert_eq!(
        lines(
            toml,
            "<r><p><price> 079.90 </price><stock/><new>TRUE</new><name> a b\n</name></p></r>"
        ),
        [r#"{"price":79.90,"stock":null,"new":true,"name":"a b","raw":" a b\n","missing":"-"}"#]
    );
    let missing = rejected(
        toml,
        "<r><p><name>x</name></p>\n <p>\n<name> </name></p></r>",
    );
    assert_eq!(missing.reason, Reason::MissingField);
    assert_eq!(
        (missing.record, missing.line, missing.column),
        (Some(2), Some(2), Some(2))
    );
    assert_eq!(missing.path.as_deref(), Some("r/p/name"));
    let empty = rejected(toml, "<r><p><name>x</name></p>\n<p/></r>");
    assert_eq!(
        (empty.record, empty.line, empty.column),
        (Some(2), Some(2), Some(1))
    );
    let wrong = rejected(toml, "<r><p><name>x</name><price>12 EUR</price></p></r>");
    assert_eq!(
        (wrong.reason, wrong.excerpt.as_deref()),
        (Reason::InvalidValue, Some("12 EUR"))
    );
}

#[test]
fn gaps_are_filled_up_to_a_bound() {
    let toml = "[fields]\ni = { each = 'i', key = 'n{@n}', value = '.', fill_gaps = true }";
    assert_eq!(lines(toml, "<r><p/></r>"), [r#"{"i":{}}"#]);
    assert_eq!(
        lines(
            toml,
            "<r><p><i n='3'>c</i><i n='0'>z</i><i n=' 01 '>a</i><i n='3'>d</i></p></r>"
        ),
        [r#"{"i":{"n0":"z","n1":"a","n2":null,"n3":"c"}}"#]
    );
    for number in ["1001", "4294967296", "-1", "x", "1.5", ""] {
        let rejection = rejected(toml, format!("<r><p><i n='{number}'/></p></r>"));
        assert_eq!(rejection.reason, Reason::InvalidValue, "{number}");
    }
}

#[test]
fn bound_prefixes_match_by_namespace_and_others_as_written() {
    let toml = r#"
        record = "rss/channel/item"
        namespaces = { g = "http://base.google.com/ns/1.0" }
        [fields]
        id = "g:id"
        title = "title"
        undeclared = "nsx:x"
        shipping = { each = "g:shipping", fields = { country = "g:country" } }
    "#;
    let item = |g: &str| {
        format!(
            "<item><title>t</title><{g}id>7</{g}id><nsx:x>u</nsx:x><{g}shipping><{g}country>DK</{g}country></{g}shipping></item>"
        )
    };
    let expected = r#"{"id":"7","title":"t","undeclared":"u","shipping":[{"country":"DK"}]}"#;
    for (declared, prefix) in [
        (r#"xmlns:g="http://base.google.com/ns/1.0""#, "g:"),
        (r#"xmlns:goo="http://base.google.com/ns/1.0""#, "goo:"),
        ("", "g:"),
    ] {
        let xml = format!("<rss {declared}><channel>{}</channel></rss>", item(prefix));
        assert_eq!(lines(toml, xml), [expected], "{declared}");
    }
    let other = format!(
        r#"<rss xmlns:g="urn:other"><channel>{}</channel></rss>"#,
        item("g:")
    );
    assert_eq!(
        lines(toml, other),
        [r#"{"id":null,"title":"t","undeclared":"u","shipping":[]}"#]
    );
    let atom = r#"<feed xmlns="urn:atom"><entry><id>1</id></entry><entry xmlns="urn:x"><id>2</id></entry></feed>"#;
    let toml =
        "record = 'a:feed/a:entry'\nnamespaces = { a = 'urn:atom' }\nfields = { id = 'a:id' }";
    assert_eq!(lines(toml, atom), [r#"{"id":"1"}"#]);
}

#[test]
fn a_document_type_is_passed_over_whatever_is_in_it() {
    let xml = r#"<?xml version="1.0"?>
        <!DOCTYPE r SYSTEM "http://example.invalid/x.dtd" [
          <!ENTITY % pe "]>"> <!-- ]> --> <?pi ]> ?>
          <!ELEMENT r (#PCDATA)> <!ATTLIST r a CDATA "]>"> %pe;
        ]>
        <r><p>x</p></r><!-- end --><?end?>
    "#;
    assert_eq!(lines("", xml), [r#""x""#]);
}

#[test]
fn records_are_found_only_at_the_end_of_their_path() {
    let xml = "<a><x><c>no</c></x><b><c>1</c><d><c>no</c></d></b><c>no</c><b><c>2</c></b></a>";
    assert_eq!(lines("record = 'a/b/c'", xml), [r#""1""#, r#""2""#]);
    assert_eq!(lines("record = 'a'", "<a k='v'/>"), [r#"{"@k":"v"}"#]);
    for path in ["a/b/x", "x", "a/b/c/d/e"] {
        assert_eq!(
            rejected(&format!("record = '{path}'"), xml).reason,
            Reason::NoRecords,
            "{path}"
        );
    }
    assert_eq!(converted("", "<a/>"), "[\n]\n");
}

#[test]
fn what_is_not_well_formed_is_refused_with_its_place() {
    let truncated = rejected("", "<r>\n <p>a</p>\n <p><q>b");
    assert_eq!(truncated.reason, Reason::MalformedXml);
    assert_eq!(
        (truncated.record, truncated.line, truncated.column),
        (Some(2), Some(3), Some(9))
    );
    assert_eq!(
        (truncated.byte_offset, truncated.path.as_deref()),
        (Some(22), Some("r/p/q"))
    );
    for xml in [
        "<r>",
        "<r><p></r>",
        "<r></p></r>",
        "<r/><r/>",
        "<r/>x",
        "<r/>&amp;",
        "<r/><![CDATA[x]]>",
        "<r><p a='<'/></r>",
        "<r><p <q/></r>",
        "<r>&</r>",
        "<r>a & b</r>",
        "<r>&#0;</r>",
        "<r>&#xD800;</r>",
        "<r>\u{1}</r>",
        "<r><1/></r>",
        "<r></></r>",
        "<r/><?xml version='1.0'?>",
        "<r/><!DOCTYPE r>",
        "<!DOCTYPE r [",
        "<!-- x",
        "<?xml version='1.0'?>",
        "<r><!DOCTYPE x></r>",
        "<r></r x='1'>",
        "<",
        "<r><![CDATA[x]]</r>",
        "<r a='1'b='2'><p/></r",
        "<!>",
        "<r><!x></r>",
    ] {
        for toml in ["", "fields = { x = 'x' }"] {
            assert_eq!(rejected(toml, xml).reason, Reason::MalformedXml, "{xml}");
        }
    }
    for xml in [
        "<r><p a=1/></r>",
        "<r><p a='1' a='2'/></r>",
        "<r><p 1a='1'/></r>",
    ] {
        for toml in ["", "fields = { x = '@x' }"] {
            assert_eq!(rejected(toml, xml).reason, Reason::MalformedXml, "{xml}");
        }
    }
    for xml in [
        "<r>&nbsp;</r>",
        "<!DOCTYPE r [<!ENTITY x 'y'>]><r>&x;</r>",
        "<r><p a='&x;'/></r>",
    ] {
        assert_eq!(rejected("", xml).reason, Reason::EntityNotAllowed, "{xml}");
    }
}

#[test]
fn bytes_that_are_not_utf_8_are_refused_with_their_place() {
    let xml = |encoding: &str, text: &[u8]| {
        [
            format!("<?xml version='1.0' encoding='{encoding}'?><r><p>").as_bytes(),
            text,
            b"</p></r>",
        ]
        .concat()
    };
    let invalid = rejected("", xml("utf-8", b"a\xe6b"));
    assert_eq!(
        (invalid.reason, invalid.record, invalid.line, invalid.column),
        (Reason::InvalidEncoding, Some(1), Some(1), Some(45))
    );
    assert_eq!(rejected("", b"<r><p>\xc3").reason, Reason::MalformedXml);
    assert_eq!(lines("", b"\xef\xbb\xbf<r><p>x</p></r>"), [r#""x""#]);
    assert_eq!(
        rejected("", b"\xef\xbb\xbf<r><p>x</r>").byte_offset,
        Some(10)
    );
}
