"""Keep the connection table of a node's namespace full; the kernel counts each namespace separately."""

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

from cnictl.lab.lab import Node
from tests.kernel.commands import Lines

FILL = """
import itertools, select, socket, struct, sys
def attr(kind, body): return struct.pack("=HH", 4 + len(body), kind) + body + bytes(-len(body) % 4)
def nest(kind, body): return attr(kind | 0x8000, body)
def way(kind, one, other, port, to):
    ports = attr(1, b"\\x11") + attr(2, struct.pack("!H", port)) + attr(3, struct.pack("!H", to))
    return nest(kind, nest(1, attr(1, one) + attr(2, other)) + nest(2, ports))
def entry(number):
    one, other = bytes((10, 1, 0, 1)), struct.pack("!I", 0x0A020000 + (number >> 16))
    port = number & 0xFFFF
    body = struct.pack("!BBH", socket.AF_INET, 0, 0) + way(1, one, other, 53, port) + way(2, other, one, port, 53)
    # CTA_STATUS: answered, assured, confirmed; CTA_TIMEOUT in seconds
    body += attr(3, struct.pack("!I", 0b1110)) + attr(7, struct.pack("!I", 86400))
    return struct.pack("=IHHII", 16 + len(body), 0x0100, 0x0401, number, 0) + body  # CT_NEW, REQUEST, CREATE
asking = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 12)
asking.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 22)
asking.send(struct.pack("=IHHII", 20, 0x0102, 0x0005, 1, 0) + bytes(4))  # CT_DELETE without a tuple: all
asking.recv(4096)
asking.setblocking(False)
def add(numbers):
    asking.send(b"".join(map(entry, numbers)))
    try:
        while True:
            asking.recv(65536)  # the kernel refuses entries that do not fit
    except OSError:
        pass
most = int(open("/proc/sys/net/netfilter/nf_conntrack_max").read())
numbers = itertools.count()
while next(numbers) < most + 2000:
    add(itertools.islice(numbers, 400))
print("full", flush=True)
while not select.select([sys.stdin], [], [], 0.01)[0]:
    add(itertools.islice(numbers, 4))
"""
"""Add assured entries with a one-day timeout, so that the kernel evicts none. Flush older entries first, because they
would expire and free slots. Then fill every slot that becomes free, until a line arrives on stdin.
"""

EMPTY = """
import socket, struct
asking = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 12)
asking.send(struct.pack("=IHHII", 20, 0x0102, 0x0005, 1, 0) + bytes(4))  # CT_DELETE without a tuple: all
asking.recv(4096)
"""
"""Flush the connection tracking table."""


@contextmanager
def kept_full(node: Node) -> Iterator[None]:
    """Keep a node's table full while the context lasts, and empty it afterwards."""
    filling = node.popen(["/usr/bin/python3", "-c", FILL], stdin=subprocess.PIPE)
    try:
        assert Lines(filling.stdout).next(60) == "full"
        yield
    finally:
        filling.kill()
        filling.communicate()
        node.run(["/usr/bin/python3", "-c", EMPTY])
