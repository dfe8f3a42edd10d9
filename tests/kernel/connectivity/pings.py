"""The nodes and pods of the tests of `cnictl ping`, and what the tests do with them."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from cnictl.core.process import Finished
from cnictl.lab.lab import Node
from tests.kernel.cluster import Cluster, shell
from tests.kernel.commands import Lines, Pod, cnictl
from tests.schemas import checked

FAST = ("-c", "1", "-W", "0.4")
SERVER = """
import socket, sys
address, name, known = sys.argv[1:]
six = ":" in address
tcp = socket.socket(socket.AF_INET6 if six else socket.AF_INET)
tcp.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
tcp.bind((address, 80)); tcp.listen()
dns = socket.socket(tcp.family, socket.SOCK_DGRAM); dns.bind((address, 53))
print("ready", flush=True)
wanted = b"".join(bytes([len(label)]) + label.encode() for label in name.split(".")) + bytes(1)
while True:
    question, origin = dns.recvfrom(512)
    mine, kind = question[12:].startswith(wanted), question[-4:-2]
    found = mine and kind == bytes([0, 1])
    record = bytes.fromhex("c00c 0001 0001 00000001 0004") + socket.inet_aton(known) if found else b""
    dns.sendto(question[:2] + bytes([0x81, 0x80 if mine else 0x83, 0, 1, 0, int(found), 0, 0, 0, 0])
               + question[12:] + record, origin)
"""
"""Listens on TCP port 80, and is a DNS server that knows one name."""


@dataclass
class World:
    """Two dual-stack nodes: pods web and db here, and far on the other node, which serves TCP port 80 and DNS."""

    cluster: Cluster
    web: Pod
    db: Pod
    far: Pod
    far6: str
    outside: Node

    @property
    def here(self) -> Node:
        return self.cluster.here

    def sh(self, line: str) -> None:
        shell(self.here, line)

    def ping(self, *words: str) -> Finished:
        return cnictl(self.here, "ping", *FAST, *words, check=False)

    def json(self, *words: str) -> dict[str, Any]:
        done = self.ping(*words, "-o", "json")
        document: dict[str, Any] = checked("ping", done.stdout)
        assert (done.status == 0) == (document["result"] == "ok"), done
        return document

    def cause(self, *words: str) -> tuple[str, str, dict[str, str]]:
        """Return the name, the text and the hint of a failed ping's cause."""
        document = self.json(*words)
        assert document["result"] == "failed", document
        return document["cause_name"], document["cause"], document["hint"]


@contextmanager
def serving(pod: Pod, address: str, known: str) -> Iterator[None]:
    process = pod.popen(["/usr/bin/python3", "-c", SERVER, address, "db.example", known])
    try:
        assert Lines(process.stdout).next() == "ready"
        yield
    finally:
        process.kill()
        process.communicate()


@contextmanager
def done_and_undone(world: World, done: str, undone: str) -> Iterator[None]:
    world.sh(done)
    try:
        yield
    finally:
        world.sh(undone)
