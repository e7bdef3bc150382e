use std::io::{self, BufRead};

use super::*;
use crate::feed::limits::RATIO_FLOOR_BYTES;
use crate::feed::tests::packing::*;

fn decode(mut input: impl Read, limits: &Limits) -> Result<Vec<u8>, ConvertError> {
    let mut decoded = Vec::new();
    let mut documents = Documents::new(&mut input, limits, None);
    while let Some(mut document) = documents.next()? {
        loop {
            document.allow();
            let chunk = document.fill_buf().map_err(ConvertError::from_carrier)?;
            if chunk.is_empty() {
                break;
            }
            decoded.extend_from_slice(chunk);
            let bytes = chunk.len();
            document.consume(bytes);
        }
    }
    Ok(decoded)
}

fn decoded(input: &[u8]) -> String {
    String::from_utf8(decode(input, &Limits::default()).unwrap()).unwrap()
}

fn rejection(input: impl Read, limits: &Limits) -> Box<Rejection> {
    match decode(input, limits) {
        Err(ConvertError::Rejected(rejection)) => rejection,
        other => panic!("not rejected: {:?}", other.map(|decoded| decoded.len())),
    }
}

fn reason(input: impl Read, limits: &Limits) -> Reason {
    rejection(input, limits).reason
}

type Pack = fn(&[u8]) -> Vec<u8>;

/// With the bytes that tell it.
const COMPRESSIONS: [(Pack, Reason, usize); 4] = [
    (gzip, Reason::CorruptGzip, 2),
    (zstd, Reason::CorruptZstd, 4),
    (bzip2, Reason::CorruptBzip2, 10),
    (xz, Reason::CorruptXz, 6),
];

#[test]
fn several_members_are_one_stream() {
    for (pack, ..) in COMPRESSIONS {
        let input = [pack(b"one "), pack(b""), pack(b"two")].concat();
        assert_eq!(decoded(&input), "one two");
    }
}

#[test]
fn many_bzip2_streams_may_not_be_tiny() {
    let empty = bzip2(b"");
    let few = empty.repeat(1_000);
    assert_eq!(decoded(&few), "");
    assert_eq!(
        reason(&*[&few[..], &empty].concat(), &Limits::default()),
        Reason::DecompressionRatio
    );
    // A thousand short ones more do not matter where most are long.
    let noise: String = (0..400_000u32)
        .map(|n| n.wrapping_mul(n).to_string())
        .collect();
    let long = bzip2(noise.as_bytes());
    let text = decoded(&[&long[..], &few, &empty].concat());
    assert_eq!(text, noise);
}

#[test]
fn damaged_or_cut_is_a_rejection_wherever_it_is_cut() {
    let text = b"a longer text, a longer text, another text".repeat(20);
    for (pack, corrupt, magic) in COMPRESSIONS {
        let whole = pack(&text);
        assert_eq!(decoded(&whole).len(), text.len());
        for cut in magic..whole.len() {
            let found = reason(&whole[..cut], &Limits::default());
            assert_eq!(found, corrupt, "cut at {cut}");
        }
        for junk in [
            &b"junk"[..],
            b"\x01",
            b"more and more junk, more than any header has",
        ] {
            let trailing = [&whole[..], junk].concat();
            assert_eq!(reason(&*trailing, &Limits::default()), corrupt);
        }
        let mut flipped = whole.clone();
        let middle = whole.len() / 2;
        flipped[middle] ^= 0x10;
        assert_eq!(reason(&*flipped, &Limits::default()), corrupt);
    }
}

#[test]
fn an_error_of_the_callers_reader_is_never_a_rejection_whatever_lies_between() {
    struct Broken<'a>(&'a [u8]);
    impl Read for Broken<'_> {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            match self.0.read(buffer)? {
                0 => Err(io::ErrorKind::UnexpectedEof.into()),
                bytes => Ok(bytes),
            }
        }
    }
    let text = b"some text".repeat(20);
    for pack in [gzip, zstd, bzip2, xz, zip_of_one, |bytes| gzip(&xz(bytes))] as [Pack; 6] {
        let whole = pack(&text);
        for cut in 0..whole.len() {
            let result = decode(Broken(&whole[..cut]), &Limits::default());
            assert!(
                matches!(result, Err(ConvertError::Read(_))),
                "cut at {cut}: {result:?}"
            );
        }
    }
}

#[test]
fn a_file_over_the_limit_and_a_bomb_have_their_own_reasons() {
    let limits = Limits {
        file_bytes: 9,
        ..Limits::default()
    };
    assert_eq!(decode(&b"123456789"[..], &limits).unwrap().len(), 9);
    assert_eq!(reason(&b"1234567890"[..], &limits), Reason::FileTooLarge);
    // Many members of nothing: the layer between is too large.
    let nothing = gzip(&gzip(b"").repeat(100));
    assert_eq!(reason(&*nothing, &limits), Reason::FileTooLarge);
    assert_eq!(decode(&*nothing, &Limits::default()).unwrap(), b"");
    let limits = Limits {
        decompression_ratio: 100,
        ..Limits::default()
    };
    let spaces = vec![b' '; 2 * RATIO_FLOOR_BYTES as usize];
    for pack in [gzip, zstd, bzip2, xz, zip_of_one] as [Pack; 5] {
        assert_eq!(reason(&*pack(&spaces), &limits), Reason::DecompressionRatio);
    }
    // Each entry is fair, the whole is not.
    let part = vec![b' '; RATIO_FLOOR_BYTES as usize * 3 / 4];
    let entries = ["a", "b"].map(|name| ZipEntry::new(name, &part));
    assert_eq!(decode(&*zip(&entries[..1]), &limits).unwrap(), part);
    assert_eq!(reason(&*zip(&entries), &limits), Reason::DecompressionRatio);
}

#[test]
fn containers_that_are_not_read_are_named() {
    let tar = [&[b'x'; 257][..], b"ustar\x0000"].concat();
    for (bytes, name) in [
        (&b"7z\xbc\xaf\x27\x1c\0\x04"[..], "7z"),
        (b"Rar!\x1a\x07\x01\0", "rar"),
        (&tar, "tar"),
        (&gzip(&tar), "tar"),
        (b"\x1f\x9d\x90", "compress (.Z)"),
    ] {
        let rejection = rejection(bytes, &Limits::default());
        assert_eq!(rejection.reason, Reason::UnsupportedContainer);
        assert!(rejection.message.ends_with(name), "{rejection}");
    }
    for text in ["BZhandel;1\n", "BZh91AY&SX", "PK;name\n", "LZIP"] {
        assert_eq!(decoded(text.as_bytes()), text);
    }
}

#[test]
fn containers_in_containers_are_opened_up_to_a_limit() {
    let twice = bzip2(&zstd(b"text"));
    assert_eq!(decoded(&twice), "text");
    assert_eq!(decoded(&gzip(&twice)), "text");
    assert_eq!(
        reason(&*xz(&gzip(&twice)), &Limits::default()),
        Reason::TooManyContainers
    );
    let limits = Limits {
        nesting: 0,
        ..Limits::default()
    };
    assert_eq!(decode(&b"text"[..], &limits).unwrap(), b"text");
    assert_eq!(reason(&*gzip(b"text"), &limits), Reason::TooManyContainers);
    let inner = zip(&[
        ZipEntry::new("b", &gzip(b"two ")),
        ZipEntry::new("c", b"three"),
    ]);
    let outer = zip(&[ZipEntry::new("a", b"one "), ZipEntry::new("z", &inner)]);
    assert_eq!(decoded(&outer), "one two three");
    let deeper = rejection(&*gzip(&outer), &Limits::default());
    assert_eq!(deeper.reason, Reason::TooManyContainers);
    assert_eq!(deeper.path.as_deref(), Some("zip entry z: zip entry b"));
}

#[test]
fn a_decompressor_gets_no_more_memory_than_it_may() {
    let limits = Limits {
        decompressor_bytes: 1 << 20,
        ..Limits::default()
    };
    assert_eq!(decode(&*xz(b"text"), &Limits::default()).unwrap(), b"text");
    assert_eq!(reason(&*xz(b"text"), &limits), Reason::DecompressorMemory);
    let wide = zstd_with_window(b"text", 27);
    assert_eq!(
        reason(&*wide, &Limits::default()),
        Reason::DecompressorMemory
    );
    let fair = zstd_with_window(b"text", 20);
    assert_eq!(decode(&*fair, &limits).unwrap(), b"text");
    // A header that asks for 3.75 GB, the most that zstd has.
    let huge = b"\x28\xb5\x2f\xfd\x04\xaf\x01\0\0";
    assert_eq!(
        reason(&huge[..], &Limits::default()),
        Reason::DecompressorMemory
    );
}

#[test]
fn no_more_than_the_allowance_can_be_read_at_once() {
    let limits = Limits {
        record_bytes: 10,
        ..Limits::default()
    };
    let mut endless = io::repeat(b'x');
    let mut stream = Stream::open(&mut endless, &limits).unwrap();
    stream.peek(100).unwrap();
    assert_eq!(stream.fill_buf().unwrap().len(), 10);
    stream.consume(10);
    let error = ConvertError::from_carrier(stream.fill_buf().unwrap_err());
    assert!(matches!(error, ConvertError::Rejected(r) if r.reason == Reason::RecordTooLarge));
    stream.allow();
    assert_eq!(stream.fill_buf().unwrap().len(), 10);
}

#[test]
fn a_zips_files_come_in_the_order_of_its_directory_and_the_rest_is_left_out() {
    let entries = [
        ZipEntry::stored("folder/", b""),
        ZipEntry::new("folder/b.xml", b"one "),
        ZipEntry::new("__MACOSX/folder/._b.xml", b"no"),
        ZipEntry::new("folder/.DS_Store", b"no"),
        ZipEntry::new("empty.xml", b""),
        ZipEntry::stored("empty-too.xml", b""),
        ZipEntry::stored("../../a.xml", b"two "),
        ZipEntry::new("/etc/passwd", b"three "),
        ZipEntry::new(b"\xff\xfe\0.xml", b"four"),
    ];
    for zip in [zip(&entries), zip64(&entries), gzip(&zip(&entries))] {
        assert_eq!(decoded(&zip), "one two three four");
    }
    assert_eq!(decoded(&zip(&[])), "");
    assert_eq!(decoded(&zip(&entries[..1])), "");
}

#[test]
fn a_zip_that_is_cut_or_followed_by_something_is_refused() {
    let whole = zip(&[
        ZipEntry::new("a", &b"some text, ".repeat(9)),
        ZipEntry::stored("b", b"more"),
    ]);
    for cut in 4..whole.len() {
        let found = reason(&whole[..cut], &Limits::default());
        assert_eq!(found, Reason::CorruptZip, "cut at {cut}");
    }
    let followed = [&whole[..], b"junk"].concat();
    assert_eq!(reason(&*followed, &Limits::default()), Reason::CorruptZip);
    let twice = [&whole[..], &whole].concat();
    assert_eq!(reason(&*twice, &Limits::default()), Reason::CorruptZip);
}

#[test]
fn what_is_wrong_with_a_zip_is_named() {
    let entry = || ZipEntry::new("a.xml", b"<r/>");
    let other = || ZipEntry::new("b.xml", b"<r/>");
    let one = |change: fn(&mut ZipEntry)| {
        let mut changed = entry();
        change(&mut changed);
        zip64(&[other(), changed])
    };
    let cases = [
        (one(|entry| entry.flags = 1), Reason::UnsupportedContainer),
        (one(|entry| entry.method = 12), Reason::UnsupportedContainer),
        (
            one(|entry| entry.method = 0x7777),
            Reason::UnsupportedContainer,
        ),
        (
            one(|entry| entry.name = vec![b'n'; 2_000]),
            Reason::NameTooLong,
        ),
        (
            one(|entry| entry.name = b"b.xml".to_vec()),
            Reason::CorruptZip,
        ),
        (one(|entry| entry.crc ^= 1), Reason::CorruptZip),
        (one(|entry| entry.size = 3), Reason::CorruptZip),
        (one(|entry| entry.size = 5), Reason::CorruptZip),
        (one(|entry| entry.size = 0), Reason::CorruptZip),
        (one(|entry| entry.size = 4 << 30), Reason::CorruptZip),
        (one(|entry| entry.size = u64::MAX), Reason::CorruptZip),
        (one(|entry| entry.packed_size = 4 << 30), Reason::CorruptZip),
        (
            one(|entry| entry.packed_size = u64::MAX),
            Reason::CorruptZip,
        ),
        (one(|entry| entry.packed_size -= 1), Reason::CorruptZip),
        (one(|entry| entry.packed.truncate(2)), Reason::CorruptZip),
        (one(|entry| entry.packed[0] ^= 0xff), Reason::CorruptZip),
        (one(|entry| entry.offset = Some(0)), Reason::CorruptZip),
        (one(|entry| entry.offset = Some(1)), Reason::CorruptZip),
        (
            one(|entry| entry.offset = Some(4 << 30)),
            Reason::CorruptZip,
        ),
        (
            one(|entry| entry.offset = Some(u64::MAX)),
            Reason::CorruptZip,
        ),
        (
            one(|entry| entry.offset = Some(i64::MAX as u64)),
            Reason::CorruptZip,
        ),
        (zip_with(&[entry()], 2, false), Reason::CorruptZip),
        (zip_with(&[entry(), other()], 1, true), Reason::CorruptZip),
        (zip_with(&[entry()], u64::MAX, true), Reason::CorruptZip),
        (
            b"PK\x03\x04 and nothing like a zip".to_vec(),
            Reason::CorruptZip,
        ),
    ];
    for (number, (zip, expected)) in cases.into_iter().enumerate() {
        let found = rejection(&*zip, &Limits::default());
        assert_eq!(found.reason, expected, "case {number}: {found}");
    }
    let encrypted = rejection(&*one(|entry| entry.flags = 1), &Limits::default());
    assert_eq!(encrypted.path.as_deref(), Some("zip entry a.xml"));
    assert!(encrypted.message.contains("encrypted"), "{encrypted}");
    let bzip2 = rejection(&*one(|entry| entry.method = 12), &Limits::default());
    assert!(bzip2.message.contains("BZIP2"), "{bzip2}");
}

#[test]
fn a_zips_size_and_entries_are_bounded() {
    let entries: Vec<_> = (0..5)
        .map(|n| ZipEntry::stored(n.to_string(), b"x"))
        .collect();
    let zip = zip(&entries);
    let limits = |zip_entries, spool_bytes| Limits {
        zip_entries,
        spool_bytes,
        ..Limits::default()
    };
    let bytes = zip.len() as u64;
    assert_eq!(decode(&*zip, &limits(5, bytes)).unwrap(), b"xxxxx");
    assert_eq!(reason(&*zip, &limits(4, bytes)), Reason::TooManyEntries);
    assert_eq!(reason(&*zip, &limits(5, bytes - 1)), Reason::FileTooLarge);
    let endless = b"PK\x03\x04".chain(io::repeat(0));
    assert_eq!(reason(endless, &limits(5, bytes)), Reason::FileTooLarge);
}

/// Text of words that compress as those of a feed do.
fn words(count: u64) -> Vec<u8> {
    let mut state = 1u64;
    let mut words = String::new();
    for _ in 0..count {
        state = state.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(1);
        words += &format!("word{} ", state >> 52);
    }
    words.into_bytes()
}

#[test]
fn what_is_decompressed_ahead_is_the_same_text() {
    let text = words(200_000);
    let members = [gzip(&text), gzip(b"and more")].concat();
    assert!(decoded(&members).ends_with(" and more"));
    for pack in [
        gzip,
        zstd,
        bzip2,
        xz,
        |bytes| gzip(&xz(bytes)),
        |bytes| gzip(&zip_of_one(bytes)),
    ] as [Pack; 6]
    {
        let packed = pack(&text);
        assert!(packed.len() > 4 * ahead::CHUNK_BYTES, "{}", packed.len());
        assert!(decode(&*packed, &Limits::default()).unwrap() == text);
    }
}

/// Why and where reading ends.
fn end(packed: &[u8], limits: &Limits) -> (Reason, u64) {
    let mut input = packed;
    let mut documents = Documents::new(&mut input, limits, None);
    let mut document = documents.next().unwrap().unwrap();
    loop {
        document.allow();
        match document.fill_buf().map(<[u8]>::len) {
            Ok(0) => panic!("it ends without an error"),
            Ok(bytes) => document.consume(bytes),
            Err(error) => match ConvertError::from_carrier(error) {
                ConvertError::Rejected(rejection) => {
                    return (rejection.reason, documents.text_bytes());
                }
                error => panic!("not rejected: {error}"),
            },
        }
    }
}

#[test]
fn what_is_wrong_with_what_is_decompressed_ahead_is_found_at_the_same_place_every_time() {
    let text = words(200_000);
    let defaults = Limits::default();
    let bombs = Limits {
        decompression_ratio: 10,
        ..Limits::default()
    };
    for (pack, corrupt, _) in COMPRESSIONS {
        let packed = pack(&text);
        let mut damaged = packed.clone();
        damaged[packed.len() / 2] ^= 0x10;
        let bomb = pack(&[&text[..], &vec![b' '; 20 << 20]].concat());
        for (bytes, limits, reason) in [
            (&packed[..packed.len() - 100], &defaults, corrupt),
            (&damaged, &defaults, corrupt),
            (&bomb, &bombs, Reason::DecompressionRatio),
        ] {
            let first = end(bytes, limits);
            assert_eq!(first.0, reason);
            assert!((0..3).all(|_| end(bytes, limits) == first));
        }
    }
}
