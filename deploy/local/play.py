#!/usr/bin/env python3
"""Drops the sample files into the partners' bucket and holds what feedmill makes of them against what is expected.

    play.py FEEDMILL CONFIG

FEEDMILL is the binary that reads the results, CONFIG its configuration; the S3 server comes from the environment, as for
s3.py. Every run has a folder of its own in each feed, so that an earlier run never decides an outcome. Prints a table.
Exit code: 0 when everything is as expected, 4 when something is not, 3 when a server or feedmill does not answer.
"""

import gzip
import json
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

from s3 import Client, S3Error

SAMPLES = Path(__file__).parent / "samples"
INPUT, OUTPUT = "partner-files", "shop-json"
RESULT_SECONDS = 30
COMMAND_SECONDS = 30
POLL_SECONDS = 0.2
UNAVAILABLE, FINDINGS = 3, 4


@dataclass
class Drop:
    """One upload, and what has to become of it."""

    sample: str
    outcome: str = "converted"
    reason: str | None = None
    note: str = ""
    expected: str | None = None
    gzipped: bool = False

    def body(self):
        body = (SAMPLES / self.sample).read_bytes()
        return gzip.compress(body, mtime=0) if self.gzipped else body


@dataclass
class Lane:
    """Uploads to one key, each after the result of the one before."""

    feed: str
    file: str
    drops: list[Drop]
    key: str = ""
    etag: str = ""
    uploaded_at: float = 0.0
    seen: set[str] = field(default_factory=set)
    rows: list["Row"] = field(default_factory=list)

    @property
    def current(self):
        return self.drops[len(self.rows)] if len(self.rows) < len(self.drops) else None


@dataclass
class Row:
    """What became of one drop; `complaint` says what is not as expected."""

    file: str
    outcome: str
    reason: str
    output: str
    milliseconds: str
    complaint: str = ""


def lanes():
    products = Drop("nsx-products.xml", expected="nsx-products.json")
    spring_a = Drop("nsx-spring-a.xml", expected="nsx-spring-a.json", note="A")
    spring_b = Drop("nsx-spring-b.xml", expected="nsx-spring-b.json", note="B")
    again = Drop("nsx-products.xml", "duplicate", expected="nsx-products.json", note="again")
    return [
        Lane("nsx", "products.xml", [products]),
        Lane("google", "products.xml", [Drop("google-products.xml", expected="google-products.json")]),
        Lane("json", "products.json", [Drop("products.json", expected="products.json")]),
        Lane("stock", "stock.xml.gz", [Drop("stock.xml", expected="stock.json", gzipped=True)]),
        Lane("nsx", "truncated.xml", [Drop("nsx-truncated.xml", "dead_lettered", "malformed_xml")]),
        Lane("nsx", "twice.xml", [products, again]),
        Lane("nsx", "spring.xml", [spring_a, spring_b, spring_a]),
    ]


def upload(s3, lane):
    lane.uploaded_at = time.time()
    lane.etag = s3.put(INPUT, lane.key, lane.current.body())


def read_results(command, run):
    """Every result of this run so far, by key, oldest first."""
    try:
        answer = subprocess.run(command, capture_output=True, text=True, timeout=COMMAND_SECONDS)
    except subprocess.TimeoutExpired as error:
        raise S3Error(f"no results within {COMMAND_SECONDS} s: {' '.join(command)}") from error
    if answer.returncode != 0:
        raise S3Error(f"{' '.join(command)}: exit {answer.returncode}: {answer.stderr.strip()[-2000:]}")
    by_key = {}
    for result in map(json.loads, answer.stdout.splitlines()):
        if result["bucket"] == INPUT and f"/{run}/" in result["key"]:
            by_key.setdefault(result["key"], []).append(result)
    for results in by_key.values():
        results.sort(key=lambda result: result["finished_at"])
    return by_key


def settle(s3, lane, result):
    """Compares one result, and the output as it is now, with what the lane's current drop has to become."""
    drop = lane.current
    complaints = []
    if (result["outcome"], result["reason"]) != (drop.outcome, drop.reason):
        complaints.append(f"expected {drop.outcome}{f' ({drop.reason})' if drop.reason else ''}: {result['message'] or 'no message'}")
    if result["etag"] != lane.etag:
        complaints.append(f"is about ETag {result['etag']}, uploaded was {lane.etag}")
    if drop.expected:
        complaints += compare_output(s3, lane.key, drop.expected)
    lane.rows.append(
        Row(
            file=lane.key + (f"  ({drop.note})" if drop.note else ""),
            outcome=result["outcome"],
            reason=result["reason"] or "",
            output=", ".join(f"{output['bucket']}/{output['key']}" for output in result["outputs"]),
            milliseconds=str(round(result["finished_at"] - lane.uploaded_at * 1000)),
            complaint="; ".join(complaints),
        )
    )


def compare_output(s3, key, expected):
    """The output has to be the expected JSON: same order of keys, same digits of numbers; white space is free."""
    try:
        output = s3.get(OUTPUT, f"{key}.json")
    except S3Error as error:
        return [f"no output: {error}"]
    wanted = (SAMPLES / "expected" / expected).read_bytes()
    try:
        return [] if exact(output) == exact(wanted) else [f"the output is not {expected}"]
    except ValueError as error:
        return [f"the output is not JSON: {error}"]


def exact(text):
    """JSON as a value that is equal only for the same keys in the same order and the same digits."""
    return json.loads(
        text,
        object_pairs_hook=lambda pairs: ("object", pairs),
        parse_float=lambda digits: ("number", digits),
        parse_int=lambda digits: ("number", digits),
    )


def give_up(lane):
    """A drop without a result fails, and so do those that were to follow it."""
    for drop in lane.drops[len(lane.rows) :]:
        file = lane.key + (f"  ({drop.note})" if drop.note else "")
        lane.rows.append(Row(file, "-", "", "", "", f"no result within {RESULT_SECONDS} s"))


def play(s3, command, lanes, run):
    """Uploads the first drop of every lane, and each next one when the result of the one before is there."""
    for lane in lanes:
        lane.key = f"{lane.feed}/{run}/{lane.file}"
        upload(s3, lane)
    while waiting := [lane for lane in lanes if lane.current]:
        results = read_results(command, run)
        for lane in waiting:
            fresh = [result for result in results.get(lane.key, []) if result["event_id"] not in lane.seen]
            if fresh:
                lane.seen.add(fresh[0]["event_id"])
                settle(s3, lane, fresh[0])
                show_progress(lane.rows[-1])
                if lane.current:
                    upload(s3, lane)
            elif time.time() - lane.uploaded_at > RESULT_SECONDS:
                give_up(lane)
        time.sleep(POLL_SECONDS)


def unasked(command, lanes, run):
    """Results that belong to no upload: an upload has exactly one."""
    results = read_results(command, run)
    expected = {lane.key: len(lane.drops) for lane in lanes}
    return [
        f"{key}: {len(found)} results for {expected.get(key, 0)} uploads"
        for key, found in results.items()
        if len(found) > expected.get(key, 0)
    ]


def show_progress(row):
    print(f"  {row.file}: {row.outcome} {row.reason}".rstrip(), file=sys.stderr)


def show_table(rows):
    titles = ("file", "outcome", "reason", "output", "ms")
    cells = [titles] + [(row.file, row.outcome, row.reason, row.output, row.milliseconds) for row in rows]
    widths = [max(len(line[column]) for line in cells) for column in range(len(titles))]
    print()
    for number, line in enumerate(cells):
        text = "  ".join(cell.ljust(width) for cell, width in zip(line[:-1], widths))
        print(f"{text}  {line[-1].rjust(widths[-1])}")
        if number == 0:
            print("  ".join("-" * width for width in widths))
        elif complaint := rows[number - 1].complaint:
            print(f"  NOT AS EXPECTED: {complaint}")
    print("\nms: from the start of the upload to the result; the S3 server's own notification is on the way.")


def main(feedmill, config):
    run = time.strftime("%Y%m%d-%H%M%S", time.gmtime())
    command = [feedmill, "results", "--json", "--config", config]
    s3, stage = Client.from_environment(), lanes()
    play(s3, command, stage, run)
    rows = [row for lane in stage for row in lane.rows]
    show_table(rows)
    complaints = [row.complaint for row in rows if row.complaint]
    for finding in (extra := unasked(command, stage, run)):
        print(f"NOT AS EXPECTED: {finding}")
    if complaints or extra:
        print(f"{len(complaints) + len(extra)} of {len(rows)} not as expected.")
        return FINDINGS
    print(f"All {len(rows)} as expected.")
    return 0


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__.strip())
    try:
        sys.exit(main(*sys.argv[1:]))
    except S3Error as error:
        print(f"play.py: {error}", file=sys.stderr)
        sys.exit(UNAVAILABLE)
