"""Define the compared plugins: how each is called, which pods its host has, and which leases its store holds.

Both get the same configuration except for `type`, and do the same work: the bridge, the veth pair, addresses and
default routes in the pod, leases, and masquerade if it is configured.
"""

import ipaddress
import json
import os
import subprocess
import time
from dataclasses import dataclass, field
from typing import Any

from cnictl.core.attachments import CLAIM_MARK
from cnictl.core.paths import ATTACHMENTS_DIR, NETWORKS_DIR
from tests.bench import place

REFERENCE_DIR = "/usr/lib/cni"
OUTSIDE = "outside"
_ENVIRONMENT = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "CNI_PATH": REFERENCE_DIR}


class Unequal(Exception):
    """A side failed or did not do its part of the work. The message says which part."""


@dataclass
class Side:
    """One plugin with its own host and its own network."""

    label: str
    program: str
    number: int
    """The number of its host, and of its subnets 10.NUMBER.0.0/16 and fd00:NUMBER::/64."""
    masquerade: bool
    dual: bool = False
    """Whether pods have addresses of both families."""
    standing: int = 0
    """The number of pods that are attached all the time."""
    filled: int = 0
    """The number of other containers' leases, one block from the subnet's start."""
    results: dict[str, Any] = field(default_factory=dict)
    """The result of ADD, by pod."""

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
        """The folder of the lease store."""
        return f"{NETWORKS_DIR}/{self.network}"

    def set_up(self, leases: int = 0) -> None:
        """Make the host, and write `leases` leases of other containers in host-local's format."""
        place.make_node(self.node, self.number, OUTSIDE)
        os.makedirs(self.store)
        hosts = ipaddress.ip_network(f"10.{self.number}.0.0/16").hosts()
        next(hosts)  # the gateway
        for number in range(leases):
            with open(f"{self.store}/{next(hosts)}", "w", encoding="ascii") as lease:
                lease.write(f"{filled_id(number)}\r\neth0")
        self.filled = leases

    def stand(self, pods: int) -> None:
        """Attach pods that stay attached, until there are `pods` of them."""
        for number in range(self.standing, pods):
            self.make_pod(f"standing{number}")
            self.call("ADD", f"standing{number}")
        self.standing = max(pods, self.standing)

    def make_pod(self, pod: str) -> None:
        """Make a pod's namespace if it does not exist."""
        if not os.path.exists(self.netns(pod)):
            place.ip("netns", "add", f"{self.node}-{pod}")

    def netns(self, pod: str) -> str:
        """Return the path of a pod's namespace."""
        return f"/run/netns/{self.node}-{pod}"

    def call(self, verb: str, pod: str, container: str = "") -> float:
        """Call the plugin as a runtime does, and return the milliseconds from spawn to exit. Raises Unequal."""
        environment, stdin = self.asked(verb, pod, container)
        with place.within(self.node):
            milliseconds, status, said = timed([self.program], environment, stdin)
        if status:
            raise Unequal(f"{self.label}: {verb} of {pod}: {said.decode()}")
        if verb == "ADD":
            self.results[pod] = json.loads(said)
        if verb == "DEL" and not container:
            self._must_be_gone(pod)
        return milliseconds

    def asked(self, verb: str, pod: str, container: str = "") -> tuple[dict[str, str], bytes]:
        """Return the environment and the stdin that a runtime gives a call."""
        conf = self._conf()
        if verb != "ADD" and pod in self.results:
            conf["prevResult"] = self.results[pod]
        environment = {
            **_ENVIRONMENT,
            "CNI_COMMAND": verb,
            "CNI_CONTAINERID": container or f"{self.network}-{pod}-0123456789abcdef0123456789abcdef",
            "CNI_NETNS": self.netns(pod),
            "CNI_IFNAME": "eth0",
            "CNI_ARGS": f"IgnoreUnknown=1;K8S_POD_NAMESPACE=default;K8S_POD_NAME={pod}",
        }
        return environment, json.dumps(conf).encode()

    def must_masquerade(self, pod: str) -> None:
        """Raise Unequal unless a receiver outside sees the expected source address on the pod's datagrams.

        With masquerade that is the host's address. Without masquerade it is the pod's own address; the receiver has no
        route back to it, so only the arriving datagram is checked.
        """
        targets, own = place.outside_addresses(self.number), place.node_addresses(self.number)
        for family in range(2 if self.dual else 1):
            target = targets[family]
            seen = place.source_seen(f"{self.node}-{pod}", OUTSIDE, target)
            if not seen or (seen == own[family]) is not self.masquerade:
                raise Unequal(f"{self.label}: {target} sees {seen or 'nothing'} although ipMasq is {self.masquerade}")

    def must_be_clean(self) -> None:
        """Raise Unequal unless only the standing pods' links, leases, and records or chains are left."""
        with place.within(self.node):
            links = [name for name in os.listdir("/proc/self/net/dev_snmp6") if name.startswith("veth")]
            rules = subprocess.run(["nft", "list", "ruleset"], check=True, capture_output=True, text=True).stdout
        families = 2 if self.dual else 1
        leases = [name for name in os.listdir(self.store) if name[0].isdigit() or ":" in name]
        left = {"links": len(links), "leases": len(leases)}
        expected = {"links": self.standing, "leases": self.standing * families + self.filled}
        if self.reference:
            left["chains"] = rules.count("chain CNI-")
            expected["chains"] = self.standing * families if self.masquerade else 0
        else:
            left["records"] = len(set(os.listdir(f"{ATTACHMENTS_DIR}/{self.network}")) - {CLAIM_MARK})
            expected["records"] = self.standing + self.filled
        if left != expected:
            raise Unequal(f"{self.label}: left {left}, expected {expected}")

    def _must_be_gone(self, pod: str) -> None:
        links = [
            interface["name"]
            for interface in self.results.pop(pod)["interfaces"]
            if interface["name"].startswith("veth")
        ]
        with place.within(self.node):
            left = [name for name in links if place.link_exists(name)]
        with place.within(f"{self.node}-{pod}"):
            left += ["eth0"] if place.link_exists("eth0") else []
        if not links:
            raise Unequal(f"{self.label}: the result of ADD for {pod} names no host veth")
        if left:
            raise Unequal(f"{self.label}: DEL of {pod} left {left}")

    def _conf(self) -> dict[str, Any]:
        subnets, everywhere = [f"10.{self.number}.0.0/16"], ["0.0.0.0/0"]
        if self.dual:
            subnets.append(f"fd00:{self.number}::/64")
            everywhere.append("::/0")
        return {
            "cniVersion": "1.0.0",
            "name": self.network,
            "type": "bridge" if self.reference else "cnictl-bridge",
            "bridge": "cni0",
            "isGateway": True,
            "ipMasq": self.masquerade,
            "ipam": {
                "type": "host-local",
                "ranges": [[{"subnet": subnet}] for subnet in subnets],
                "routes": [{"dst": destination} for destination in everywhere],
            },
        }


def filled_id(number: int) -> str:
    """Return the ID of the container that holds the lease of that number in a filled store."""
    return f"other-{number:08d}-0123456789abcdef0123456789abcdef"


def timed(argv: list[str], environment: dict[str, str], stdin: bytes) -> tuple[float, int, bytes]:
    """Run a program over pipes as a runtime does. Return milliseconds from spawn to exit, exit status and stdout."""
    read_in, write_in = os.pipe()
    read_out, write_out = os.pipe()
    os.write(write_in, stdin)  # does not block: a conf and a result are far smaller than a pipe's buffer
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
