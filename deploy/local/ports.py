#!/usr/bin/env python3
"""Chooses loopback ports that nothing listens on.

    ports.py NAME=PREFERRED ...       PREFERRED 0: any free one

Prints `NAME=PORT` lines. A `+` after the number asks for PORT + 10000 to be free as well (SeaweedFS's gRPC), a `!`
says that no other port will do: exit code 3 when it is taken.
"""

import random
import socket
import sys

# With the 10,000 added both stay below 32768, where Linux begins to hand out ports to outgoing connections.
ANY = range(11_000, 22_000)
ATTEMPTS = 1_000
USAGE = 2
TAKEN = 3


def is_free(port):
    with socket.socket() as probe:
        # As a server binds: a port whose last connection is still in TIME_WAIT is free.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def choose(wish, chosen):
    """The wished port, else any other; None when neither is to be had."""
    number = int(wish.rstrip("+!"))
    candidates = [number] if number else []
    if not wish.endswith("!"):
        candidates += random.sample(ANY, ATTEMPTS)
    for port in candidates:
        needed = [port, port + 10_000] if "+" in wish else [port]
        if chosen.isdisjoint(needed) and all(map(is_free, needed)):
            chosen.update(needed)
            return port
    return None


def main(wishes):
    chosen = set()
    for name, _, wish in (argument.partition("=") for argument in wishes):
        if not wish.rstrip("+!").isdigit():
            print(__doc__.strip(), file=sys.stderr)
            return USAGE
        port = choose(wish, chosen)
        if port is None:
            print(f"ports.py: no free port for {name} (asked for {wish})", file=sys.stderr)
            return TAKEN
        print(f"{name}={port}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
