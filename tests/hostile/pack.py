"""Containers made byte by byte, so that each of their fields can lie. Standard library only; zstd has no module there before Python 3.14."""

import bz2
import gzip
import itertools
import lzma
import struct
import zlib

MIB = 1 << 20
ZSTD_BLOCK_BYTES = 128 << 10


def little(number, size):
    return number.to_bytes(size, "little")


def gz(data):
    return gzip.compress(data, 9, mtime=0)


def zstd(data, window_log=17, checksum=None):
    """A frame of raw and run-length blocks (RFC 8878). A block of one repeated byte takes four bytes."""
    descriptor = 0 if checksum is None else 4
    frame = [b"\x28\xb5\x2f\xfd", bytes([descriptor, (window_log - 10) << 3])]
    for block, is_run in zstd_blocks(data):
        frame += [little(len(block) << 3 | is_run << 1, 3), block[:1] if is_run else block]
    return b"".join(frame) + little(1, 3) + (checksum or b"")


def zstd_blocks(data):
    """Pieces of the data, each with whether it is one byte again and again."""

    def repeated(piece):
        return piece[:1] if piece == piece[:1] * len(piece) else None

    pieces = (data[at : at + 512] for at in range(0, len(data), 512))
    for byte, group in itertools.groupby(pieces, repeated):
        joined = b"".join(group)
        for at in range(0, len(joined), ZSTD_BLOCK_BYTES):
            yield joined[at : at + ZSTD_BLOCK_BYTES], byte is not None


def zstd_skippable(size):
    """What a decoder passes over."""
    return b"\x50\x2a\x4d\x18" + little(size, 4) + bytes(size)


def zstd_huge_window():
    """A frame that asks for the largest window there is, 3.75 TiB."""
    return b"\x28\xb5\x2f\xfd\x00\xff" + little(1, 3)


def bz(data):
    return bz2.compress(data, 9)


def xz(data):
    return lzma.compress(data, preset=1)


def xz_huge_dictionary(data):
    """The first block's header says 4 GiB (section 3.1 of the format), its checksum made right."""
    packed = bytearray(xz(data))
    at, size = 12, (packed[12] + 1) * 4
    packed[at + 4] = 40
    packed[at + size - 4 : at + size] = little(zlib.crc32(packed[at : at + size - 4]), 4)
    return bytes(packed)


def flipped(data, at):
    """With one bit wrong."""
    data = bytearray(data)
    data[at] ^= 1
    return bytes(data)


class Entry:
    """An entry of a zip. Whatever is given overrides what is true."""

    def __init__(self, name, data=b"", stored=False, **lies):
        self.name = name if isinstance(name, bytes) else name.encode()
        self.data = data
        if not stored:
            deflate = zlib.compressobj(9, zlib.DEFLATED, -15)
            self.data = deflate.compress(data) + deflate.flush()
        self.method = 0 if stored else 8
        self.flags = 0
        self.crc = zlib.crc32(data)
        self.size = len(data)
        self.packed = len(self.data)
        self.offset = None
        self.__dict__.update(lies)

    def common(self, extra, is_zip64):
        sizes = (0xFFFFFFFF, 0xFFFFFFFF) if is_zip64 else (self.packed, self.size)
        return struct.pack("<HHHIIIIHH", 45, self.flags, self.method, 0, self.crc, *sizes, len(self.name), len(extra))

    def extra(self, offset):
        return struct.pack("<HHQQQ", 1, 24, self.size, self.packed, offset)


def zip_of(*entries, count=None, zip64=False, comment=b"", after=b""):
    """APPNOTE.TXT of PKWARE, sections 4.3.7 to 4.3.16."""
    body, directory = bytearray(), bytearray()
    for entry in entries:
        offset = len(body) if entry.offset is None else entry.offset
        extra = entry.extra(offset) if zip64 else b""
        body += b"PK\x03\x04" + entry.common(extra, zip64) + entry.name + extra + entry.data
        directory += b"PK\x01\x02" + struct.pack("<H", 45) + entry.common(extra, zip64)
        directory += bytes(10) + little(0xFFFFFFFF if zip64 else offset, 4) + entry.name + extra
    count = len(entries) if count is None else count
    end = b"PK\x05\x06" + struct.pack("<HHHHIIH", 0, 0, count, count, len(directory), len(body), len(comment))
    return bytes(body + directory) + end + comment + after


def zip_one(data, **lies):
    return zip_of(Entry("feed.xml", data, **lies))


def tar(data):
    header = bytearray(512)
    header[0:8] = b"feed.xml"
    header[124:135] = b"%011o" % len(data)
    header[257:265] = b"ustar\x0000"
    return bytes(header) + data + bytes(-len(data) % 512 + 1024)
