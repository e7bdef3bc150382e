"""Makes the hostile corpus: files that mean harm, or are merely broken, and what each of them is to come to.

    python3 tests/hostile/make.py FOLDER

Writes the files and FOLDER/manifest.json, a list of {"file", "feed", "expect"}. `feed` is one of feedmill.toml beside this file, `expect` lists
the results that are right: reason codes of docs/reasons.md, or "converted". More than one stands only for CSV that was cut, where it depends on the
column. The same files whenever it runs; Python 3.8 and its standard library are enough.
"""

import json
import os
import sys

from pack import (
    MIB, Entry, bz, flipped, gz, little, tar, xz, xz_huge_dictionary, zip_of, zip_one, zstd, zstd_huge_window, zstd_skippable,
)

CONVERTED = "converted"
XML = b'<?xml version="1.0" encoding="UTF-8"?>\n<r>\n<p id="1"><n>one</n></p>\n<p id="2"><n>two</n></p>\n</r>\n'


class Corpus:
    def __init__(self, folder):
        self.folder = folder
        self.manifest = []

    def add(self, name, data, *expect, feed="auto"):
        if isinstance(data, str):
            data = data.encode()
        with open(os.path.join(self.folder, name), "wb") as file:
            file.write(data)
        self.manifest.append({"file": name, "feed": feed, "expect": list(expect)})

    def finish(self):
        names = [case["file"] for case in self.manifest]
        assert len(set(names)) == len(names), "two files of one name"
        with open(os.path.join(self.folder, "manifest.json"), "w") as file:
            json.dump(self.manifest, file, indent=0)


def main():
    corpus = Corpus(sys.argv[1])
    for group in (
        bombs, packed, zips, entities, truncated, encodings, characters, xml_markup, xml_sizes, json_text, json_sizes, csv_text, not_a_feed,
    ):
        group(corpus)
    corpus.finish()


def bombs(corpus):
    """Little that becomes much."""
    add = corpus.add
    spaces = b"<r>" + (b" " * MIB + b"<p/>") * 40 + b"</r>"
    packers = {"gz": gz, "zst": zstd, "bz2": bz, "xz": xz, "zip": zip_one}
    for suffix, pack in packers.items():
        add("bomb." + suffix, pack(spaces), "decompression_ratio")
    small = gz(spaces)
    add("bomb.gz.gz", gz(small), "decompression_ratio")
    add("bomb.gz.zip", zip_one(small, stored=True), "decompression_ratio")
    add("bomb-one-text.gz", gz(b"<r><p>" + b"x" * (40 * MIB)), "record_too_large")
    add("bomb-of-members.gz", gz(gz(b"") * 200_000), "empty_file")
    # As 42.zip is: no file in it is unfair, all together are, and more than that lies deeper.
    leaf = zip_one(b"<r>" + b" " * MIB + b"</r>")
    middle = zip_of(*[Entry("%d.zip" % n, leaf, stored=True) for n in range(16)])
    add("bomb-16-by-16.zip", zip_of(*[Entry("%d.zip" % n, middle) for n in range(16)]), "decompression_ratio")
    nested = XML
    for level in range(4):
        nested = zip_one(nested)
    add("four-zips-in-one-another.zip", nested, "too_many_containers")
    nested = gz(gz(gz(gz(XML))))
    add("four-gzips-in-one-another.gz", nested, "too_many_containers")
    add("three-containers.bz2", bz(gz(xz(XML))), CONVERTED)
    add("many-empty-streams.bz2", bz(b"") * 1_000, "empty_file")
    add("too-many-empty-streams.bz2", bz(b"") * 200_000, "decompression_ratio")
    add("too-many-empty-streams.bz2.gz", gz(bz(b"") * 500_000), "decompression_ratio")
    add("many-empty-members.gz", gz(b"") * 20_000, "empty_file")
    add("many-empty-streams.xz", xz(b"") * 20_000, "empty_file")
    add("many-skippable-frames.zst", zstd(b"") + zstd_skippable(0) * 100_000 + zstd(XML), CONVERTED)
    add("skippable-frame-first.zst", zstd_skippable(4) + zstd(XML), CONVERTED)
    add("huge-window.zst", zstd_huge_window(), "decompressor_memory")
    add("window-over-the-limit.zst", zstd(XML, window_log=27), "decompressor_memory")
    add("huge-dictionary.xz", xz_huge_dictionary(XML), "decompressor_memory")
    add("three-large-windows.zst", three_large_windows(), CONVERTED)
    add("gaps.xml", "<r><p>" + '<i type="1000"/>' * 20_000 + "</p></r>", CONVERTED, feed="gaps")
    add("gap-too-wide.xml", '<r><p><i type="4000000000"/></p></r>', "invalid_value", feed="gaps")
    lists = "<a><i>1000</i></a>" * 2_000
    add("a-list-of-gaps.xml", "<r><p>" + lists + "</p></r>", "record_too_large", feed="lists-of-gaps")


def three_large_windows():
    """The most memory that decompressors may take: each layer's window is as large as the limit allows, and filled to its end."""
    window, log = 64 * MIB, 26
    record = b"<p>" + b" " * (4 * MIB) + b"</p>\n"
    data = zstd(b"<r>" + record * 17 + b"</r>", log)
    for _ in range(2):
        data = zstd(data + zstd_skippable(window), log)
    # No more than what is fair for its size.
    return zstd(b"") + zstd_skippable(MIB) + data


def packed(corpus):
    """Containers that are damaged, or not read."""
    add = corpus.add
    text = XML * 20
    for suffix, pack, reason in (("gz", gz, "corrupt_gzip"), ("zst", zstd, "corrupt_zstd"), ("bz2", bz, "corrupt_bzip2"), ("xz", xz, "corrupt_xz")):
        whole = pack(XML)
        add("junk-after." + suffix, whole + b"junk, and more of it than a header has", reason)
        add("nothing-but-a-header." + suffix, whole[:10], reason)
    add("wrong-checksum.gz", flipped(gz(XML), -8), "corrupt_gzip")
    add("wrong-length.gz", flipped(gz(XML), -1), "corrupt_gzip")
    add("wrong-checksum.zst", zstd(XML, checksum=bytes(4)), "corrupt_zstd")
    add("wrong-checksum.bz2", flipped(bz(XML), 10), "corrupt_bzip2")
    add("wrong-checksum.xz", flipped(xz(XML), -29), "corrupt_xz")
    add("one-bit-wrong.gz", flipped(gz(text), 40), "corrupt_gzip")
    add("reserved-flags.gz", flipped(gz(XML), 3)[:3] + b"\xe0" + gz(XML)[4:], "corrupt_gzip")
    add("name-without-end.gz", gz(XML)[:3] + b"\x08" + gz(XML)[4:10] + b"n" * 300_000, "corrupt_gzip")
    add("second-member-damaged.gz", gz(XML) + flipped(gz(XML), -8), "corrupt_gzip")
    add("compressed-empty.gz", gz(b""), "empty_file")
    add("feed.tar", tar(XML), "unsupported_container")
    add("feed.tar.gz", gz(tar(XML)), "unsupported_container")
    add("feed.7z", b"7z\xbc\xaf\x27\x1c\x00\x04" + bytes(100), "unsupported_container")
    add("feed.rar", b"Rar!\x1a\x07\x01\x00" + bytes(100), "unsupported_container")
    add("feed.lz4", b"\x04\x22\x4d\x18" + bytes(100), "unsupported_container")
    add("feed.Z", b"\x1f\x9d\x90" + bytes(100), "unsupported_container")


def zips(corpus):
    """Zips that lie, and zips that are no feeds."""
    add = corpus.add

    def one(name, reason, **lies):
        add(name, zip_of(Entry("feed.xml", XML, **lies)), reason)

    # Names are only ever printed.
    for number, name in enumerate(("../../../../tmp/slip.xml", "/etc/passwd", "C:\\windows\\feed.xml", "a/../../b.xml", b"nul\x00.xml", b"\xff\xfe.xml")):
        add("slip-%d.zip" % number, zip_of(Entry(name, XML)), CONVERTED)
    one("wrong-checksum.zip", "corrupt_zip", crc=1)
    one("size-of-4-gib-deflated.zip", "corrupt_zip", size=0xFFFFFFFE)
    one("size-of-4-gib-stored.zip", "corrupt_zip", size=0xFFFFFFFE, packed=0xFFFFFFFE, stored=True)
    one("size-too-small.zip", "corrupt_zip", size=10)
    one("packed-size-too-small.zip", "corrupt_zip", packed=10)
    one("encrypted.zip", "unsupported_container", flags=1)
    one("strongly-encrypted.zip", "unsupported_container", flags=1 << 6 | 1)
    one("method-99.zip", "unsupported_container", method=99)
    one("method-lzma.zip", "unsupported_container", method=14)
    one("offset-beyond-the-end.zip", "corrupt_zip", offset=0xFFFFFFF0)
    for exponent in (32, 63):
        entry = Entry("feed.xml", XML, size=1 << exponent, packed=1 << exponent)
        add("zip64-size-of-2-to-%d.zip" % exponent, zip_of(entry, zip64=True), "corrupt_zip")
    add("zip64-offset-of-2-to-63.zip", zip_of(Entry("feed.xml", XML, offset=1 << 63), zip64=True), "corrupt_zip")
    add("zip64-true.zip", zip_of(Entry("feed.xml", XML), zip64=True), CONVERTED)
    first = Entry("a.xml", XML, stored=True)
    add("one-entry-twice.zip", zip_of(first, Entry("b.xml", XML, stored=True, offset=0)), "corrupt_zip")
    add("entry-in-entry.zip", zip_of(Entry("a.bin", zip_of(first)[:-60], stored=True), Entry("a.xml", XML, stored=True, offset=35)), "corrupt_zip")
    add("two-of-one-name.zip", zip_of(first, first), "corrupt_zip")
    add("more-entries-than-there-are.zip", zip_of(first, count=2), "corrupt_zip")
    add("fewer-entries-than-there-are.zip", zip_of(first, Entry("b.xml", XML), count=1), "corrupt_zip")
    add("a-thousand-entries.zip", zip_of(*[Entry("%d.xml" % n, b"<r><p/></r>") for n in range(1_000)]), CONVERTED)
    add("a-thousand-and-one.zip", zip_of(*[Entry("%d.xml" % n, b"<r><p/></r>") for n in range(1_001)]), "too_many_entries")
    add("sixty-thousand-entries.zip", zip_of(*[Entry("%d" % n) for n in range(60_000)]), "too_many_entries")
    add("long-name.zip", zip_of(Entry("n" * 1_025, XML)), "name_too_long")
    add("longest-name.zip", zip_of(Entry("n" * 65_535, XML)), "name_too_long")
    add("nothing-in-it.zip", zip_of(), "empty_file")
    add("only-folders.zip", zip_of(Entry("a/", stored=True), Entry("b/", stored=True)), "empty_file")
    add("with-a-comment.zip", zip_of(first, comment=b"x" * 65_535), CONVERTED)
    add("comment-with-an-end-in-it.zip", zip_of(first, comment=zip_of()), "corrupt_zip")
    add("junk-after.zip", zip_of(first, after=b"junk"), "corrupt_zip")
    add("junk-before.zip", b"MZ" + bytes(98) + zip_of(first), "unknown_format")
    add("nothing-but-a-header.zip", b"PK\x03\x04", "corrupt_zip")
    add("in-parts.zip", b"PK\x07\x08" + zip_of(first), "unsupported_container")
    add("one-good-one-bad.zip", zip_of(first, Entry("b.xml", b"<r><p>")), "malformed_xml")
    types = Entry("[Content_Types].xml", b'<Types xmlns="http://schemas.openxmlformats.org/package/2006/content-types"><Default/></Types>')
    sheet = Entry("xl/worksheets/sheet1.xml", b"<worksheet><sheetData><row/></sheetData></worksheet>")
    add("workbook.xlsx", zip_of(types, Entry("_rels/.rels", b"<Relationships/>"), sheet), "unsupported_container")
    add("letter.docx", zip_of(Entry("word/document.xml", b"<w:document><w:body/></w:document>"), types), "unsupported_container")
    mime = Entry("mimetype", b"application/vnd.oasis.opendocument.spreadsheet", stored=True)
    add("table.ods", zip_of(mime, Entry("content.xml", b"<office><body/></office>")), "unknown_format")


def entities(corpus):
    """Nothing is expanded and nothing is fetched, so what nobody refers to does no harm."""
    add = corpus.add

    def document(name, subset, text, *expect):
        add(name, "<!DOCTYPE r [%s]><r><p>%s</p></r>" % (subset, text), *expect)

    refused = "entity_not_allowed"
    laughs = '<!ENTITY l0 "lol">' + "".join('<!ENTITY l%d "%s">' % (n, "&l%d;" % (n - 1) * 10) for n in range(1, 10))
    document("billion-laughs.xml", laughs, "&l9;", refused)
    document("billion-laughs-not-used.xml", laughs, "", CONVERTED)
    document("quadratic-blow-up.xml", '<!ENTITY a "%s">' % ("x" * 50_000), "&a;" * 50_000, refused)
    document("entity-in-itself.xml", '<!ENTITY a "&b;"><!ENTITY b "&a;">', "&a;", refused)
    document("external-entity.xml", '<!ENTITY x SYSTEM "file:///etc/passwd">', "&x;", refused)
    document("external-entity-by-http.xml", '<!ENTITY x SYSTEM "http://169.254.169.254/latest/meta-data/">', "&x;", refused)
    document("parameter-entity.xml", '<!ENTITY % p SYSTEM "http://127.0.0.1:1/x.dtd"> %p;', "", CONVERTED)
    document("parameter-entity-that-defines.xml", "<!ENTITY % p '<!ENTITY x \"y\">'> %p;", "&x;", refused)
    document("predefined-entity-redefined.xml", '<!ENTITY lt "harm">', "&lt;", CONVERTED)
    document("default-attributes.xml", '<!ATTLIST p a CDATA "&x;">', "", CONVERTED)
    add("external-dtd.xml", '<!DOCTYPE r SYSTEM "http://127.0.0.1:1/x.dtd"><r><p/></r>', CONVERTED)
    for number, name in enumerate(("nbsp", "AMP", "", "x" * MIB, "lt ", "&amp")):
        expect = "malformed_xml" if name == "&amp" else refused
        add("unknown-entity-%d.xml" % number, "<r><p>&%s;</p></r>" % name, expect)
    add("unknown-entity-in-an-attribute.xml", '<r><p a="&x;"/></r>', refused)
    for number, digits in enumerate(("0", "1", "xD800", "xDFFF", "xFFFE", "xFFFF", "x110000", "99999999999999999999", "9" * MIB, "-1", "x", "", "X41")):
        add("bad-character-reference-%d.xml" % number, "<r><p>&#%s;</p></r>" % digits, "malformed_xml")
        add("bad-character-reference-in-an-attribute-%d.xml" % number, '<r><p a="&#%s;"/></r>' % digits, "malformed_xml")
    add("a-million-zeros-in-a-reference.xml", "<r><p>&#%s65;</p></r>" % ("0" * MIB), CONVERTED)
    add("a-million-references.xml", "<r><p>%s</p></r>" % ("&amp;" * MIB), CONVERTED)
    add("ampersand-alone.xml", "<r><p>AT & T</p></r>", "malformed_xml")
    add("reference-without-end.xml", "<r><p>&amp</p></r>", "malformed_xml")
    add("references-without-end.xml", "<r><p>" + "&" * MIB, "malformed_xml")
    add("doctype-of-20-mb.xml", "<!DOCTYPE r [%s]><r/>" % ('<!ENTITY x "y">' * 1_400_000), "record_too_large")
    add("doctype-after-the-root.xml", "<r/><!DOCTYPE r>", "malformed_xml")


def truncated(corpus):
    """Cut at every fiftieth of a file. Only where a cut leaves whole rows or lines can nobody tell."""
    items = range(1, 41)
    xml = '<?xml version="1.0" encoding="UTF-8"?>\n<r>\n%s</r>' % "".join(
        '  <p id="%d"><n>søkk &amp; %d</n><!-- c --><d><![CDATA[<b>é</b>]]></d></p>\n' % (n, n) for n in items
    )
    document = json.dumps([{"id": n, "name": "søkk \\ %d" % n, "list": [1.5, None, True]} for n in items], ensure_ascii=False)
    lines = "".join(json.dumps({"id": n, "name": "søkk", "list": [n]}, ensure_ascii=False) + "\n" for n in items)
    rows = "id,name,text\n" + "".join('%d,søkk,"two\nlines, ""quoted"""\n' % n for n in items)
    # Compressed data that is not all alike, so that there is enough of it to be cut.
    noise = "<r>%s</r>" % "".join("<p>%d</p>" % (n * 2_654_435_761 % 1_000_003) for n in range(400))
    cut = {
        "cut.xml": (xml, "auto", ["malformed_xml"]),
        "cut-utf16.xml": (xml.replace("UTF-8", "UTF-16").encode("utf-16"), "auto", cut_utf16),
        "cut-fields.xml": (xml, "items", ["malformed_xml"]),
        "cut.json": (document, "auto", ["malformed_json"]),
        "cut.jsonl": (lines, "auto", cut_lines),
        "cut.csv": (rows, "csv", ["malformed_csv", "ragged_row", CONVERTED]),
        "cut.gz": (gz(noise.encode()), "auto", ["corrupt_gzip"]),
        "cut.zst": (zstd(noise.encode()), "auto", ["corrupt_zstd"]),
        "cut.bz2": (bz(noise.encode()), "auto", ["corrupt_bzip2"]),
        "cut.xz": (xz(noise.encode()), "auto", ["corrupt_xz"]),
        "cut.zip": (zip_one(noise.encode()), "auto", ["corrupt_zip"]),
        "cut-inside.zip": (None, "auto", ["malformed_xml"]),
    }
    for name, (data, feed, expect) in cut.items():
        stem, suffix = name.rsplit(".", 1)
        data = xml.encode() if data is None else data.encode() if isinstance(data, str) else data
        for part in range(1, 50):
            piece = data[: len(data) * part // 50]
            results = expect(piece) if callable(expect) else expect
            if stem == "cut-inside":
                piece = zip_one(piece)
            corpus.add("%s-%02d.%s" % (stem, part, suffix), piece, *results, feed=feed)
        whole = zip_one(data) if stem == "cut-inside" else data
        corpus.add("%s-not.%s" % (stem, suffix), whole, CONVERTED, feed=feed)


def cut_lines(data):
    try:
        for line in data.decode().splitlines():
            json.loads(line)
    except ValueError:
        return ["malformed_json"]
    return [CONVERTED]


def cut_utf16(data):
    return ["invalid_encoding" if len(data) % 2 else "malformed_xml"]


def encodings(corpus):
    """Bytes that are not what they are said to be."""
    add = corpus.add
    invalid, unsupported = "invalid_encoding", "unsupported_encoding"

    def declared(label, text, encoding):
        return ('<?xml version="1.0" encoding="%s"?><r><p>%s</p></r>' % (label, text)).encode(encoding)

    add("declared-utf-8-is-latin-1.xml", declared("UTF-8", "Crème", "latin-1"), invalid)
    add("declared-latin-1-is-utf-8.xml", declared("ISO-8859-1", "\u00dd", "utf-8"), invalid)
    add("declared-utf-16-is-utf-8.xml", declared("UTF-16", "x", "utf-8"), invalid)
    add("declared-utf-8-is-utf-16.xml", declared("UTF-8", "ø", "utf-16"), CONVERTED)
    add("declared-ascii-is-not.xml", declared("US-ASCII", "é", "latin-1"), invalid)
    add("declared-shift-jis-is-not.xml", declared("Shift_JIS", "\u00ff\u00ff", "latin-1"), invalid)
    add("declared-gb18030-cut.xml", declared("GB18030", "\u00fe", "latin-1"), invalid)
    for label in ("UTF-7", "UTF-32", "EBCDIC-CP-US", "x-user-defined", "hz-gb-2312", "replacement", "klingon", ""):
        add("declared-%s.xml" % (label or "nothing"), declared(label, "x", "utf-8"), unsupported)
    add("declared-beyond-the-head.xml", '<?xml version="1.0"%s encoding="latin-1"?><r/>' % (" " * 2_000), "malformed_xml")
    for name in ("utf-32-le", "utf-32-be"):
        text = XML.decode()
        add(name + ".xml", text.encode(name), unsupported)
        add(name + "-bom.xml", ("\ufeff" + text).encode(name), unsupported)
    add("ebcdic.xml", XML.decode().encode("cp500"), "unknown_format")
    add("utf-7-bom.xml", b"+/v8-" + XML, "unknown_format")
    add("scsu-bom.xml", b"\x0e\xfe\xff" + XML, "unknown_format")
    for name, unit in (("high", 0xD83D), ("low", 0xDE00)):
        for order in ("little", "big"):
            half = unit.to_bytes(2, order)
            head, tail = ("\ufeff<r><p>".encode("utf-16-" + order[0] + "e"), "</p></r>".encode("utf-16-" + order[0] + "e"))
            add("lone-%s-surrogate-%s.xml" % (name, order), head + half + tail, invalid)
    add("odd-number-of-bytes.xml", "\ufeff<r/>".encode("utf-16-le") + b"\x20", invalid)
    add("utf-16-in-latin-1.csv", "id;n\n1;é\n".encode("utf-16-le"), CONVERTED, feed="windows")
    bad = {
        "overlong-slash": b"\xc0\xaf", "overlong-nul": b"\xc0\x80", "overlong-three": b"\xe0\x80\xaf", "cesu-8": b"\xed\xa0\xbd\xed\xb8\x80",
        "lone-surrogate": b"\xed\xa0\x80", "beyond-unicode": b"\xf4\x90\x80\x80", "five-bytes": b"\xf8\x88\x80\x80\x80",
        "continuation": b"\x80", "unfinished": b"\xe2\x82", "ff": b"\xff",
    }
    for name, piece in bad.items():
        add(name + ".xml", b"<r><p>" + piece + b"</p></r>", invalid)
        add(name + "-in-an-attribute.xml", b'<r><p a="' + piece + b'"/></r>', invalid)
        add(name + "-in-a-comment.xml", b"<r><!--" + piece + b"--></r>", invalid)
        add(name + ".json", b'[{"a":"' + piece + b'"}]', invalid)
        add(name + ".csv", b"id,name\n1," + piece + b"\n", invalid, feed="csv")
    add("utf-8-bom-and-latin-1.xml", b"\xef\xbb\xbf" + declared("ISO-8859-1", "é", "latin-1"), invalid)
    add("two-boms.xml", b"\xef\xbb\xbf\xef\xbb\xbf" + XML, "unknown_format")
    add("bom-in-a-text.xml", "<r><p>a\ufeffb</p></r>", CONVERTED)
    add("bom-before-the-root.xml", "<?xml version='1.0'?>\ufeff<r/>", "malformed_xml")
    add("bom-in-json.json", "[\ufeff1]", "malformed_json")


def characters(corpus):
    """NUL and its like."""
    add = corpus.add
    for number in (0, 1, 8, 11, 12, 14, 31):
        add("control-%d.xml" % number, b"<r><p>a" + bytes([number]) + b"</p></r>", "malformed_xml")
        add("control-%d.json" % number, b'[{"a":"b' + bytes([number]) + b'"}]', "malformed_json")
    add("nul-in-a-name.xml", b"<r><p\0a/></r>", "malformed_xml")
    add("nul-in-an-attribute.xml", b'<r><p a="\0"/></r>', "malformed_xml")
    add("nul-after-the-root.xml", XML + b"\0", "malformed_xml")
    add("nul-in-a-cell.csv", b"id,name\n1,a\0b\n", CONVERTED, feed="csv")
    add("not-a-character.xml", "<r><p>\uffff</p></r>", "malformed_xml")
    add("nothing-but-nul.xml", bytes(MIB), "unknown_format")
    add("mixed-line-ends.csv", b"id,name\r\n1,a\n2,b\r3,c\r\n", CONVERTED, feed="csv")
    add("mixed-line-ends.xml", b"<r>\r<p>a\r\nb\rc\n</p>\n\r</r>", CONVERTED)


def xml_markup(corpus):
    """Everything unclosed, repeated or out of its place."""
    broken = {
        "repeated-attribute": '<r><p a="1" a="2"/></r>',
        "attribute-repeated-late": "<r><p%s a0='x'/></r>" % "".join(" a%d=''" % n for n in range(40)),
        "unclosed-element": "<r><p>",
        "unclosed-root": "<r><p/>",
        "unclosed-tag": "<r><p",
        "unclosed-attribute": '<r><p a="1',
        "unclosed-end-tag": "<r></r",
        "unclosed-cdata": "<r><p><![CDATA[x</p></r>",
        "unclosed-comment": "<r><!-- x</r>",
        "unclosed-instruction": "<r><?x y</r>",
        "unclosed-doctype": "<!DOCTYPE r [<!ENTITY x '",
        "unclosed-declaration": "<?xml version='1.0'",
        "unclosed-many-times": "<r>" + "<p " * 100_000,
        "quotes-that-swallow": "<r>" + "<p a='" * 100_001,
        "end-without-start": "</r>",
        "wrong-end": "<r><p></q></r>",
        "ends-crossed": "<r><a><b></a></b></r>",
        "two-roots": "<r/><r/>",
        "text-after-the-root": "<r/>text",
        "text-before-the-root": "<?xml version='1.0'?>text<r/>",
        "cdata-after-the-root": "<r/><![CDATA[x]]>",
        "reference-after-the-root": "<r/>&#32;",
        "markup-in-an-attribute": '<r><p a="<"/></r>',
        "no-quotes": "<r><p a=1/></r>",
        "no-value": "<r><p a/></r>",
        "no-space": "<r><p a='1'b='2'/></r>",
        "no-name": "<r>< p/></r>",
        "digit-name": "<r><1/></r>",
        "quote-in-a-name": "<r><p\"/></r>",
        "two-declarations": "<?xml version='1.0'?><?xml version='1.0'?><r/>",
        "late-declaration": "<r><?xml version='1.0'?></r>",
        "not-markup": "<r><!p></r>",
        "nothing-but-a-declaration": "<?xml version='1.0'?>\n",
        "nothing-but-a-comment": "<!-- x -->",
        "less-than": "<",
        "greater-than": "<>",
    }
    for name, text in broken.items():
        corpus.add(name + ".xml", text, "malformed_xml", feed="xml")
        if name.startswith(("unclosed", "wrong", "repeated")):
            corpus.add(name + "-by-fields.xml", text, "malformed_xml", feed="items")


def xml_sizes(corpus):
    """Too much of anything."""
    add = corpus.add
    attributes = lambda count: "".join(" a%d=''" % n for n in range(count))
    add("depth-10000.xml", "<a>" * 10_000 + "</a>" * 10_000, "too_deep")
    add("depth-1000000.xml", "<a>" * 1_000_000, "too_deep", feed="items")
    add("attributes-257.xml", "<r><p%s/></r>" % attributes(257), "too_many_attributes")
    add("attributes-10000.xml", "<r><p%s/></r>" % attributes(10_000), "too_many_attributes")
    add("namespaces-10000.xml", "<r>" + "".join("<d%s>" % "".join(" xmlns:p%dx%d='u'" % (d, n) for n in range(200)) for d in range(50)), "too_many_attributes", feed="google")
    add("name-of-1-mb.xml", "<r><%s/></r>" % ("n" * MIB), "name_too_long")
    add("attribute-name-of-1-mb.xml", "<r><p %s=''/></r>" % ("n" * MIB), "name_too_long")
    add("end-name-of-1-mb.xml", "<r></%s>" % ("n" * MIB), "malformed_xml")
    add("text-of-9-mb.xml", "<r><p>%s</p></r>" % ("x" * 9_000_000), "text_too_long")
    add("text-of-9-mb-in-pieces.xml", "<r><p>%s</p></r>" % ("xxxx&amp;<![CDATA[%s]]>" % ("y" * 40) * 200_000), "text_too_long")
    add("attribute-of-9-mb.xml", "<r><p a='%s'/></r>" % ("x" * 9_000_000), "text_too_long")
    add("cdata-of-9-mb.xml", "<r><p><![CDATA[%s]]></p></r>" % ("x" * 9_000_000), "text_too_long")
    add("text-of-17-mb.xml", "<r><p>%s</p></r>" % ("x" * 17_000_000), "record_too_large")
    add("comment-of-17-mb.xml", "<r><!--%s--></r>" % ("x" * 17_000_000), "record_too_large")
    add("instruction-of-17-mb.xml", "<r><?%s?></r>" % ("x" * 17_000_000), "record_too_large")
    add("comments-of-17-mb.xml", "<r><p>%s</p></r>" % ("<!-- -->" * 2_200_000), "record_too_large")
    add("a-million-children.xml", "<r><p>%s</p></r>" % ("<a/>" * 1_000_000), "record_too_large")
    add("the-largest-record.xml", "<r><p>%s</p></r>" % ("<a>é\r\n&lt;</a>" * 300_000), CONVERTED)
    add("the-largest-texts.xml", "<r><p><a>%s</a><b>%s</b></p></r>" % ("\r\n" * 2_000_000, "\r\n" * 2_000_000), CONVERTED)
    add("the-largest-texts-escaped.xml", "<r><p><a>%s</a></p></r>" % ("\t\"\\" * 2_600_000), CONVERTED)
    add("keys-of-1-kb.xml", "<r><p>%s</p></r>" % "".join('<i type="%d%s"/>' % (n, "k" * 1_000) for n in range(5_000)), CONVERTED, feed="keyed")
    add("keys-of-1-kb-too-many.xml", "<r><p>%s</p></r>" % "".join('<i type="%d%s"/>' % (n, "k" * 1_000) for n in range(14_000)), "record_too_large", feed="keyed")


def json_text(corpus):
    """Almost JSON."""
    broken = {
        "unclosed-string": '[{"a":"b', "unclosed-key": '[{"a', "unclosed-object": '[{"a":1', "unclosed-array": '[{"a":1}', "unclosed-escape": '["\\',
        "unclosed-unicode-escape": '["\\u00', "closed-wrongly": '[{"a":1]', "trailing-comma": "[1,]", "trailing-comma-in-an-object": '[{"a":1,}]',
        "no-comma": "[1 2]", "no-colon": '[{"a" 1}]', "no-value": '[{"a":}]', "no-key": "[{:1}]", "nan": "[NaN]", "infinity": "[-Infinity]",
        "single-quotes": "[{'a':1}]", "comment": "[1] // x", "block-comment": "[/* x */ 1]", "leading-zero": "[01]", "plus": "[+1]", "no-digits": "[-]",
        "no-fraction": "[1.]", "no-exponent": "[1e]", "hexadecimal": "[0x1]", "half-a-word": "[tru]", "long-word": "[trueish]",
        "wrong-escape": '["\\x41"]', "line-end-in-a-string": '["a\nb"]', "two-documents": "[1][2]", "closed-twice": "[1]]", "python": '[{"a": None}]',
        "lone-high-surrogate": '["\\ud800"]', "lone-low-surrogate": '["\\udc00"]', "two-high-surrogates": '["\\ud800\\ud800"]',
        "surrogate-and-text": '["\\ud800x"]', "surrogate-and-escape": '["\\ud800\\n"]', "surrogate-at-the-end": '["\\ud83d',
        "callback": "callback([1])", "key-without-quotes": "[{a:1}]", "form-feed": "[1,\f2]", "no-break-space": "[1,\u00a02]",
    }
    for name, text in broken.items():
        corpus.add(name + ".json", text, "malformed_json", feed="json")
    corpus.add("unclosed-string-by-fields.json", '[{"a":"b', "malformed_json", feed="json-fields")
    corpus.add("broken-where-nobody-asks.json", '[{"b":[1,],"a":"b"}]', "malformed_json", feed="json-fields")
    corpus.add("same-key-twice.json", '[{"a":1,"a":2}]', CONVERTED)
    corpus.add("huge-exponent.json", '[{"a":1e999999999999}]', CONVERTED)
    corpus.add("huge-exponent-by-fields.json", '[{"a":1e999999999999}]', CONVERTED, feed="json-decimal")
    corpus.add("escaped-nul.json", '[{"a":"\\u0000"}]', CONVERTED)
    corpus.add("object-where-a-value-is-wanted.json", '[{"a":{"b":1}}]', "invalid_value", feed="json-fields")
    corpus.add("records-that-are-no-objects.json", "[1,2]", "invalid_value", feed="json-fields")


def json_sizes(corpus):
    add = corpus.add
    add("depth-10000.json", "[" * 10_000 + "]" * 10_000, "too_deep")
    add("depth-1000000.json", '{"a":' * 1_000_000, "too_deep")
    add("depth-1000000-by-fields.json", '[{"a":' + "[" * 1_000_000, "too_deep", feed="json-fields")
    add("key-of-1-mb.json", '[{"%s":1}]' % ("k" * MIB), "name_too_long")
    add("string-of-9-mb.json", '[{"a":"%s"}]' % ("x" * 9_000_000), "text_too_long")
    add("string-of-9-mb-by-fields.json", '[{"a":"%s"}]' % ("x" * 9_000_000), "text_too_long", feed="json-fields")
    add("number-of-9-mb.json", '[{"a":%s}]' % ("9" * 9_000_000), "text_too_long")
    add("number-of-1-mb.json", '[{"a":%s}]' % ("9" * MIB), CONVERTED)
    add("record-of-17-mb.json", "[[%s1]]" % ("1," * 8_500_000), "record_too_large")
    add("record-of-17-mb-of-spaces.json", "[[%s1]]" % (" " * 17_000_000), "record_too_large")
    add("the-largest-record.json", '[{"a":[%s1]}]' % ('"\\u00e9\\n",' * 1_000_000), CONVERTED)
    add("a-million-keys.json", "[{%s}]" % ",".join('"%d":1' % n for n in range(1_000_000)), CONVERTED)


def csv_text(corpus):
    add = corpus.add

    def csv(name, data, *expect, feed="csv"):
        add(name, data, *expect, feed=feed)

    csv("unclosed-quote.csv", 'id,name\n1,"a\n2,b\n', "malformed_csv")
    csv("quote-opened-at-the-end.csv", 'id,name\n1,"', "malformed_csv")
    csv("unclosed-quote-in-the-header.csv", 'id,"name\n1,a\n', "malformed_csv")
    csv("row-too-long.csv", "id,name\n1,a,b\n", "ragged_row")
    csv("row-too-short.csv", "id,name\n1\n", "ragged_row")
    csv("same-column-twice.csv", "id,id\n1,2\n", "duplicate_column")
    csv("column-without-a-name.csv", "id,\n1,2\n", "unnamed_column")
    csv("other-columns.csv", "a,b\n1,2\n", "unknown_columns", feed="csv-fields")
    csv("two-delimiters.csv", "a,b;c\n1,2;3\n", "unknown_dialect")
    csv("formula.csv", "id,name\n1,=cmd|' /C calc'!A0\n", CONVERTED)
    csv("no-rows.csv", "id,name\n", CONVERTED)
    csv("nothing-but-line-ends.csv", "\n\r\n\n", "empty_file")
    csv("columns-100000.csv", wide(100_000, 1), CONVERTED)
    csv("columns-1000000.csv", wide(1_000_000, 1), "record_too_large")
    csv("cells-1000000.csv", "id,name\n1" + "," * 1_000_000 + "\n", "ragged_row")
    csv("cells-5000000.csv", "id,name\n1" + "," * 5_000_000 + "\n", "record_too_large")
    csv("cell-of-9-mb.csv", "id,name\n1,%s\n" % ("x" * 9_000_000), "text_too_long")
    csv("cell-of-17-mb.csv", 'id,name\n1,"%s"\n' % ("x\n" * 8_500_000), "record_too_large")
    csv("line-of-17-mb.csv", "x" * 17_000_000, "record_too_large")
    csv("column-name-of-1-mb.csv", "id,%s\n1,2\n" % ("n" * MIB), "name_too_long")
    escaped = ",".join("\x01" * 1_000 + str(n) for n in range(8_000))
    csv("header-that-grows.csv", escaped + "\n", "record_too_large")
    csv("comment-of-17-mb.csv", "id,name\n#%s\n1,a\n" % ("x" * 17_000_000), CONVERTED, feed="csv-comments")
    csv("a-million-rows.csv", "a\n" + "1\n" * 1_000_000, CONVERTED)


def wide(columns, rows):
    lines = [",".join("c%d" % n for n in range(columns))] + [",".join("x" for _ in range(columns))] * rows
    return "\n".join(lines) + "\n"


def not_a_feed(corpus):
    """What arrives where a feed was meant to."""
    add = corpus.add
    add("empty.xml", b"", "empty_file")
    add("only-a-bom.xml", b"\xef\xbb\xbf", "empty_file")
    add("only-a-utf-16-bom.xml", b"\xff\xfe", "empty_file")
    add("only-white-space.xml", b" \t\r\n" * 100, "empty_file")
    add("a-megabyte-of-white-space.xml", b" " * MIB, "unknown_format")
    html = "<!DOCTYPE html>\n<html><head><meta charset='utf-8'><title>502 Bad Gateway</title></head><body><h1>502</h1><hr></body></html>\n"
    add("error-page.html", html, "malformed_xml")
    xhtml = "<?xml version='1.0'?><html xmlns='http://www.w3.org/1999/xhtml'><head><title>404</title></head><body><p>gone</p></body></html>"
    add("error-page.xhtml", xhtml, "no_records", feed="items")
    add("s3-error.xml", "<?xml version='1.0' encoding='UTF-8'?>\n<Error><Code>AccessDenied</Code><Message>no</Message></Error>", "no_records", feed="items")
    add("error.json", '{"error":"not found"}', "no_records", feed="items")
    add("error.txt", "Not found", "unknown_format")
    add("error-with-a-comma.txt", "Sorry, this page is gone.\n", "unknown_format")
    add("page.pdf", b"%PDF-1.7\n%\xe2\xe3\xcf\xd3\n1 0 obj\n<< /Type /Catalog >>\nendobj\n" + bytes(range(256)) * 8, "unknown_format")
    add("picture.png", b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR" + bytes(range(256)) * 8, "unknown_format")
    add("picture.jpg", b"\xff\xd8\xff\xe0\0\x10JFIF\0" + bytes(range(256)) * 8, "unknown_format")
    add("program.elf", b"\x7fELF\x02\x01\x01" + bytes(range(256)) * 8, "unknown_format")
    add("table.xls", b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(1_000), "unsupported_container")
    add("database.sqlite", b"SQLite format 3\0" + bytes(1_000), "unknown_format")
    noise = b"".join(little(n * 2_654_435_761 % (1 << 32), 4) for n in range(1, 50_000))
    add("noise.bin", b"\xf1" + noise, "unknown_format")
    add("mail.eml", "From: a@example.com\nSubject: feed\n\n<r/>\n", "unknown_format")


if __name__ == "__main__":
    main()
