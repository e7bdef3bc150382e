#!/usr/bin/env python3
"""The NSX mapping the way such scripts are written today, with xmltodict: the baseline of benches/feed.rs.

    FEEDMILL_BENCH_WRITE=FILE.xml cargo bench --bench feed     # the input
    python3 -m venv /tmp/baseline && /tmp/baseline/bin/pip install xmltodict
    /tmp/baseline/bin/python benches/xmltodict_nsx.py FILE.xml > OUT.json

Writes what `feedmill convert` with the NSX feed of benches/feed.rs writes, as a JSON array with one record per line; the time and the
megabytes of XML per second go to stderr.
"""

import json
import sys
import time

import xmltodict


def convert(path, out):
    separator = "[\n"

    def item(path, element):
        nonlocal separator
        # xmltodict gives the attributes of the record with its path.
        record = mapped(path[-1][1] or {}, element)
        out.write(separator + json.dumps(record, ensure_ascii=False, separators=(",", ":")))
        separator = ",\n"
        return True

    with open(path, "rb") as file:
        xmltodict.parse(file, item_depth=2, item_callback=item, strip_whitespace=False, force_list=("nsx:image", "nsx:price"))
    out.write("[\n]\n" if separator == "[\n" else "\n]\n")


def mapped(attributes, element):
    images = {}
    for image in (element.get("nsx:images") or {}).get("nsx:image", []):
        images.setdefault(int(image["@type"]), image["@url"])
    highest = max(images, default=0)
    return {
        "product_id": attributes.get("id"),
        "product_category": element.get("nsx:category"),
        "product_description": element.get("nsx:description"),
        "product_images": {f"image_{number}": images.get(number) for number in range(1, highest + 1)},
        "prices": [
            {"currency": price.get("nsx:currency"), "value": price.get("nsx:value")}
            for price in (element.get("nsx:prices") or {}).get("nsx:price", [])
        ],
    }


if __name__ == "__main__":
    started = time.perf_counter()
    convert(sys.argv[1], sys.stdout)
    seconds = time.perf_counter() - started
    with open(sys.argv[1], "rb") as file:
        megabytes = file.seek(0, 2) / 1e6
    print(f"{megabytes:.1f} MB in {seconds:.1f} s: {megabytes / seconds:.2f} MB/s", file=sys.stderr)
