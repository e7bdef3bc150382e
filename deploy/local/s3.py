#!/usr/bin/env python3
"""A small S3 client for the local stack: requests signed by SigV4, standard library only.

Endpoint and credentials come from the environment that `deploy/local/up` prints:
FEEDMILL_S3__ENDPOINT, AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_REGION.

    s3.py make-bucket BUCKET...       made, or there already
    s3.py put BUCKET/KEY FILE         prints the ETag; FILE may be - for standard input
    s3.py get BUCKET/KEY              prints the object's bytes
    s3.py list BUCKET[/PREFIX]        prints one key a line
    s3.py list-buckets                prints one bucket a line
"""

import datetime
import hashlib
import hmac
import http.client
import os
import sys
import urllib.parse
import xml.etree.ElementTree as ElementTree
from pathlib import Path

TIMEOUT_SECONDS = 10
USAGE = 2
UNAVAILABLE = 3


class S3Error(Exception):
    """The server answered with an error, or not at all."""

    def __init__(self, message, status=None):
        super().__init__(message)
        self.status = status


class Client:
    """Path-style requests to one endpoint, one connection a request."""

    def __init__(self, endpoint, access_key, secret_key, region):
        url = urllib.parse.urlsplit(endpoint)
        if url.scheme not in ("http", "https") or not url.netloc:
            raise S3Error(f"not an endpoint: {endpoint!r}")
        self.connection = http.client.HTTPSConnection if url.scheme == "https" else http.client.HTTPConnection
        self.host = url.netloc
        self.access_key = access_key
        self.secret_key = secret_key
        self.region = region

    @classmethod
    def from_environment(cls):
        names = ("FEEDMILL_S3__ENDPOINT", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")
        missing = [name for name in names if not os.environ.get(name)]
        if missing:
            raise S3Error(f'{", ".join(missing)} not set: eval "$(deploy/local/up)" sets them')
        return cls(*(os.environ[name] for name in names), os.environ.get("AWS_REGION", "us-east-1"))

    def make_bucket(self, bucket):
        """Makes a bucket; one that is there already is as good."""
        try:
            self.request("PUT", f"/{bucket}")
        except S3Error as error:
            if error.status != 409:
                raise

    def buckets(self):
        answer = ElementTree.fromstring(self.request("GET", "/")[0])
        return [name.text for name in answer.iterfind("{*}Buckets/{*}Bucket/{*}Name")]

    def put(self, bucket, key, body):
        """Writes an object and returns its ETag without quotes."""
        _, headers = self.request("PUT", f"/{bucket}/{key}", body=body)
        return headers.get("ETag", "").strip('"')

    def get(self, bucket, key):
        return self.request("GET", f"/{bucket}/{key}")[0]

    def keys(self, bucket, prefix=""):
        """Every key under a prefix, page by page."""
        token = None
        while True:
            query = {"list-type": "2", "prefix": prefix}
            if token:
                query["continuation-token"] = token
            page = ElementTree.fromstring(self.request("GET", f"/{bucket}", query=query)[0])
            yield from (key.text for key in page.iterfind("{*}Contents/{*}Key"))
            token = page.findtext("{*}NextContinuationToken")
            if not token:
                return

    def request(self, method, path, query=None, body=b""):
        """One signed request: body and headers of a 2xx answer, S3Error for any other."""
        path = urllib.parse.quote(path)
        query = "&".join(
            f"{urllib.parse.quote(name, safe='')}={urllib.parse.quote(value, safe='')}"
            for name, value in sorted((query or {}).items())
        )
        headers = self.signed_headers(method, path, query, body)
        connection = self.connection(self.host, timeout=TIMEOUT_SECONDS)
        try:
            connection.request(method, f"{path}?{query}" if query else path, body, headers)
            response = connection.getresponse()
            answer = response.read()
        except (OSError, http.client.HTTPException) as error:
            raise S3Error(f"{method} {path}: no answer from {self.host}: {error}") from error
        finally:
            connection.close()
        if response.status // 100 != 2:
            excerpt = answer[:300].decode("utf-8", "replace")
            raise S3Error(f"{method} {path}: {response.status} {excerpt}", response.status)
        return answer, response.headers

    def signed_headers(self, method, path, query, body):
        """Signature Version 4, as "Authenticating Requests" of the S3 API reference has it."""
        now = datetime.datetime.now(datetime.timezone.utc)
        timestamp, date = now.strftime("%Y%m%dT%H%M%SZ"), now.strftime("%Y%m%d")
        body_hash = hashlib.sha256(body).hexdigest()
        headers = {"host": self.host, "x-amz-content-sha256": body_hash, "x-amz-date": timestamp}
        names = ";".join(headers)
        canonical_headers = "".join(f"{name}:{value}\n" for name, value in headers.items())
        canonical = "\n".join((method, path, query, canonical_headers, names, body_hash))
        scope = f"{date}/{self.region}/s3/aws4_request"
        to_sign = "\n".join(("AWS4-HMAC-SHA256", timestamp, scope, hashlib.sha256(canonical.encode()).hexdigest()))
        key = f"AWS4{self.secret_key}".encode()
        for part in (*scope.split("/"), to_sign):
            key = hmac.new(key, part.encode(), hashlib.sha256).digest()
        headers["authorization"] = (
            f"AWS4-HMAC-SHA256 Credential={self.access_key}/{scope}, SignedHeaders={names}, Signature={key.hex()}"
        )
        return headers


def split_target(target):
    """`bucket/key`, with or without `s3://` before it."""
    bucket, _, key = target.removeprefix("s3://").partition("/")
    return bucket, key


def main(arguments):
    match arguments:
        case ["make-bucket", _, *_]:
            client = Client.from_environment()
            for bucket in arguments[1:]:
                client.make_bucket(bucket)
        case ["put", target, file]:
            body = sys.stdin.buffer.read() if file == "-" else Path(file).read_bytes()
            print(Client.from_environment().put(*split_target(target), body))
        case ["get", target]:
            sys.stdout.buffer.write(Client.from_environment().get(*split_target(target)))
        case ["list", target]:
            for key in Client.from_environment().keys(*split_target(target)):
                print(key)
        case ["list-buckets"]:
            for bucket in Client.from_environment().buckets():
                print(bucket)
        case ["--help" | "-h"]:
            print(__doc__.strip())
        case _:
            print(__doc__.strip(), file=sys.stderr)
            return USAGE
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except (S3Error, OSError) as error:
        print(f"s3.py: {error}", file=sys.stderr)
        sys.exit(UNAVAILABLE)
