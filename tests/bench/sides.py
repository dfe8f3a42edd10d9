"""The plugins that are compared: how each is configured and called, and what its store holds beforehand.

Both do equal work: bridge, veth pair, address and default route in the pod, lease, and masquerading where asked for.
"""

import ipaddress
import json
import os
import shutil
import time
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from cnictl.core.paths import ATTACHMENTS_DIR, INDEX_DIR, NETWORKS_DIR
from tests.bench import place

REFERENCE_DIR = "/usr/lib/cni"
OUTSIDE = "outside"
_ENVIRONMENT = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "CNI_PATH": REFERENCE_DIR}


class CallFailed(Exception):
    """A plugin call ended with an error; the message is what it said."""


@dataclass
class Side:
    """One plugin on a host of its own, with a network of its own."""

    label: str
    program: str
    number: int
    """Which of the bench's hosts; also makes its subnet 10.NUMBER.0.0/16."""
    masquerade: bool
    leases: int = 0
    """Other containers' leases in the store, a block from the subnet's start."""
    at_block: bool = False
    """Whether `last_reserved_ip` is put to the block's start before each ADD."""
    pods: int = 0
    target: str = ""
    """An address outside that pods can send to."""
    results: dict[int, Any] = field(default_factory=dict)

    @property
    def reference(self) -> bool:
        """Whether this is the reference plugin."""
        return self.program.startswith(REFERENCE_DIR)

    @property
    def network(self) -> str:
        """The network's name."""
        return f"bench{self.number}"

    @property
    def node(self) -> str:
        """The host's namespace."""
        return f"node{self.number}"

    @property
    def store(self) -> str:
        """The folder of leases."""
        return f"{NETWORKS_DIR}/{self.network}"

    def pod(self, place_in_row: int) -> str:
        """The namespace of a pod."""
        return f"pod{self.number}-{place_in_row}"

    def set_up(self, pods: int) -> None:
        """Make the host, the pods' namespaces and the leases that are there beforehand."""
        self.pods = pods
        self.target = place.make_node(self.node, self.number, OUTSIDE)
        for one in range(pods):
            place.ip("netns", "add", self.pod(one))
        fill(self.store, f"10.{self.number}.0.0/16", self.leases)

    def tear_down(self) -> None:
        """Remove the namespaces and all that is on disk for the network."""
        for one in range(self.pods):
            place.ip("netns", "delete", self.pod(one))
        place.ip("-n", self.node, "link", "delete", f"up{self.number}")  # the namespace's own end comes later
        place.ip("netns", "delete", self.node)
        for folder in (self.store, f"{ATTACHMENTS_DIR}/{self.network}"):
            shutil.rmtree(folder, ignore_errors=True)
        with suppress(FileNotFoundError):
            os.unlink(f"{INDEX_DIR}/{self.network}")

    def call(self, verb: str, pod: int) -> float:
        """One call as a runtime makes it; returns its milliseconds from spawn to exit. Raises CallFailed."""
        conf = self._conf()
        if verb == "ADD":
            if self.at_block:
                with open(f"{self.store}/last_reserved_ip.0", "w", encoding="ascii") as last:
                    last.write(f"10.{self.number}.0.2")
        elif pod in self.results:
            conf["prevResult"] = self.results[pod]
        environment = {
            **_ENVIRONMENT,
            "CNI_COMMAND": verb,
            "CNI_CONTAINERID": f"{self.network}-{pod:08d}-0123456789abcdef0123456789abcdef",
            "CNI_NETNS": f"/run/netns/{self.pod(pod)}",
            "CNI_IFNAME": "eth0",
            "CNI_ARGS": f"IgnoreUnknown=1;K8S_POD_NAMESPACE=default;K8S_POD_NAME=pod-{pod}",
        }
        with place.within(self.node):
            milliseconds, status, said = timed([self.program], environment, json.dumps(conf).encode())
        if status:
            raise CallFailed(f"{self.label}: {verb} of pod {pod}: {said.decode()}")
        if verb == "ADD":
            self.results[pod] = json.loads(said)
        if verb == "DEL":
            self._must_be_gone(pod)
        return milliseconds

    def masquerades(self, pod: int) -> bool:
        """Whether the outside sees the host's address on what a pod sends."""
        return place.source_seen(self.pod(pod), OUTSIDE, self.target) == f"198.51.{self.number}.2"

    def _must_be_gone(self, pod: int) -> None:
        links = [one["name"] for one in self.results.pop(pod)["interfaces"] if one["name"].startswith("veth")]
        with place.within(self.node):
            left = [name for name in links if place.link_exists(name)]
        with place.within(self.pod(pod)):
            left += ["eth0"] if place.link_exists("eth0") else []
        if left or not links:
            raise CallFailed(f"{self.label}: DEL of pod {pod} left {left or 'no name of a host veth'}")

    def _conf(self) -> dict[str, Any]:
        common: dict[str, Any] = {"cniVersion": "1.0.0", "name": self.network, "bridge": "cni0"}
        common["ipMasq"] = self.masquerade
        if not self.reference:
            return {**common, "type": "cnictl-bridge", "subnet": f"10.{self.number}.0.0/16"}
        ipam = {"type": "host-local", "subnet": f"10.{self.number}.0.0/16", "routes": [{"dst": "0.0.0.0/0"}]}
        return {**common, "type": "bridge", "isGateway": True, "ipam": ipam}


def fill(store: str, subnet: str, leases: int) -> None:
    """Put leases of other containers into a store, as host-local writes them: one block from the subnet's start."""
    os.makedirs(store)
    hosts = ipaddress.ip_network(subnet).hosts()
    next(hosts)  # the gateway
    for number in range(leases):
        with open(f"{store}/{next(hosts)}", "w", encoding="ascii") as lease:
            lease.write(f"other-{number:08d}-0123456789abcdef0123456789abcdef\r\neth0")


def timed(argv: list[str], environment: dict[str, str], stdin: bytes) -> tuple[float, int, bytes]:
    """Run a program as a runtime does, over pipes: milliseconds from spawn to exit, exit status, what it wrote."""
    read_in, write_in = os.pipe()
    read_out, write_out = os.pipe()
    os.write(write_in, stdin)  # a conf and a result are far smaller than a pipe's buffer
    os.close(write_in)
    actions = [(os.POSIX_SPAWN_DUP2, read_in, 0), (os.POSIX_SPAWN_DUP2, write_out, 1)]
    started = time.perf_counter_ns()
    child = os.posix_spawn(argv[0], argv, environment, file_actions=actions)
    _, status = os.waitpid(child, 0)
    ended = time.perf_counter_ns()
    os.close(read_in)
    os.close(write_out)
    with os.fdopen(read_out, "rb") as pipe:
        said = pipe.read()
    return (ended - started) / 1e6, os.waitstatus_to_exitcode(status), said
