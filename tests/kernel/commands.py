"""Use a lab node as an operator and a runtime do: run cnictl, attach pods with the installed plugin, send traffic.

`snapshot` returns everything on a host that a reset must restore.
"""

import hashlib
import json
import os
import pty
import re
import select
import subprocess
from dataclasses import dataclass
from typing import IO, Any

from cnictl.core.process import Finished
from cnictl.lab.lab import Node
from tests.waiting import wait_for

CONF = "/etc/cni/net.d/10-cnictl.conflist"
PLUGIN = "/opt/cni/bin/cnictl-bridge"
NETWORK = "10.244.0.0/20"
INIT_OPTIONS = ("--subnet", "10.244.0.0/24", "--network", NETWORK)

DOCKER_FILTER = """\
*filter
:INPUT ACCEPT [0:0]
:FORWARD DROP [0:0]
:OUTPUT ACCEPT [0:0]
:DOCKER-USER - [0:0]
-A FORWARD -j DOCKER-USER
-A FORWARD -o docker0 -j ACCEPT
-A DOCKER-USER -j RETURN
COMMIT
"""
"""The filter table that Docker leaves, in the format of iptables-restore."""

_VOLATILE = re.compile(
    r"nf_conntrack_count|nf_conntrack_buckets|nf_conntrack_max|netfilter\.nf_hooks|neigh\.|random|fs\.|"
    r"ipv4\.route\.flush|ipv6\.route\.flush"
)


@dataclass(frozen=True)
class Pod:
    """A pod that the installed plugin attached."""

    node: Node
    name: str
    address: str

    def command(self, *argv: str) -> list[str]:
        """Return the command that runs `argv` inside the pod when started on the pod's node."""
        return ["ip", "netns", "exec", self.name, *argv]

    def run(self, *argv: str, check: bool = True) -> Finished:
        """Run a command in the pod's network."""
        return self.node.run(self.command(*argv), check=check)

    def popen(self, argv: list[str]) -> subprocess.Popen[str]:
        """Start a command in the pod's network."""
        return self.node.popen(self.command(*argv))

    def pings(self, address: str) -> bool:
        """Return whether `address` answers an echo request."""
        return self.run("ping", "-n", "-c1", "-W2", address, check=False).status == 0


def cnictl(node: Node, *words: str, check: bool = True) -> Finished:
    """Run a cnictl command on the node."""
    return node.run(["cnictl", *words], timeout=90, check=check)


def at_terminal(node: Node, answer: str, *words: str) -> Finished:
    """Run a cnictl command at a terminal, and answer its question."""
    ours, its = pty.openpty()
    try:
        os.write(ours, f"{answer}\n".encode())
        process = node.popen(["cnictl", *words], stdin=its)
        said, told = process.communicate(timeout=90)
        return Finished(process.returncode, said, told)
    finally:
        os.close(ours)
        os.close(its)


def init(node: Node, *more: str, check: bool = True) -> Finished:
    """Set up a node of the lab with its own pod CIDR."""
    return cnictl(node, "init-node", "--subnet", node.pod_cidr, "--network", NETWORK, *more, check=check)


def outcomes(done: Finished) -> dict[str, str]:
    """Return the outcome of each resource from a command that was run with `-o json`."""
    return {step["resource"]: step["outcome"] for step in json.loads(done.stdout)["steps"]}


def drifted(node: Node) -> list[str]:
    """Return the resources that `cnictl status` reports as drifted."""
    status = json.loads(cnictl(node, "status", "-o", "json", check=False).stdout)
    return [row["resource"] for row in status["resources"] if row["state"] != "ok"]


def doctor(node: Node, *words: str) -> list[str]:
    """Return the ids of `cnictl doctor`'s findings. Skip the slow checks that query the peers."""
    skipped = ("--skip", "mtu-path", "--skip", "pods-filtered", "--skip", "same-pod-cidr",
               "--skip", "peer-pods", "--skip", "peer-silent")  # fmt: skip
    document = json.loads(cnictl(node, "doctor", "-o", "json", *skipped, *words, check=False).stdout)
    return [finding["id"] for finding in document["items"]]


def start_pod(node: Node, name: str) -> Pod:
    """Attach a pod as a runtime does: create a namespace, and call ADD of the installed plugin."""
    node.run(["ip", "netns", "add", name])
    return Pod(node, name, call(node, "ADD", name)["ips"][0]["address"].partition("/")[0])


def call(node: Node, verb: str, name: str, request: dict[str, Any] | None = None) -> Any:
    """Call the installed plugin with `request`, or with the installed conf, and return its answer."""
    if request is None:
        conf = json.loads(node.run(["cat", CONF]).stdout)
        request = {"cniVersion": conf["cniVersion"], "name": conf["name"], **conf["plugins"][0]}
    environment = {
        "CNI_COMMAND": verb, "CNI_CONTAINERID": name, "CNI_NETNS": f"/run/netns/{name}", "CNI_IFNAME": "eth0",
        "CNI_PATH": "/opt/cni/bin",
    }  # fmt: skip
    said = node.run([PLUGIN], stdin=json.dumps(request), env=environment).stdout
    return json.loads(said) if said else {}


_ECHO = """
import socket, sys
kind = socket.SOCK_DGRAM if sys.argv[1] == "udp" else socket.SOCK_STREAM
server = socket.socket(socket.AF_INET, kind)
server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
server.bind(("0.0.0.0", 7007))
if sys.argv[1] == "tcp":
    server.listen()
print("ready", flush=True)
while True:
    if sys.argv[1] == "udp":
        peer = server.recvfrom(64)[1]
    else:
        connection, peer = server.accept()
        connection.close()
    print(peer[0], flush=True)
"""

_SEND = """
import socket, sys
kind = socket.SOCK_DGRAM if sys.argv[1] == "udp" else socket.SOCK_STREAM
client = socket.socket(socket.AF_INET, kind)
client.settimeout(5)
client.connect((sys.argv[2], 7007))
if sys.argv[1] == "udp":
    client.send(b"who am I")
"""


def seen_source(sender: Pod, receiver: Pod | Node, protocol: str = "udp") -> str:
    """Return the source address that the receiver sees when the sender sends to it."""
    node = receiver.node if isinstance(receiver, Pod) else receiver
    python = ["/usr/bin/python3", "-c"]
    server = [*python, _ECHO, protocol]
    listening = node.popen(receiver.command(*server) if isinstance(receiver, Pod) else server)
    try:
        assert _line(listening) == "ready"
        sender.run(*python, _SEND, protocol, receiver.address)
        return _line(listening)
    finally:
        listening.kill()
        listening.communicate()


def _line(process: "subprocess.Popen[str]", bound: float = 10.0) -> str:
    assert process.stdout is not None
    assert select.select([process.stdout], [], [], bound)[0], f"nothing within {bound:g} s"
    return process.stdout.readline().strip()


def snapshot(node: Node) -> dict[str, Any]:
    """Return kernel settings, links, addresses, routes, rules of every kind, and the files that cnictl could change."""
    wait_for(lambda: "tentative" not in node.run(["ip", "address"]).stdout, "IPv6 addresses are settled")
    sysctls = node.run(["sysctl", "-a", "--pattern", r"^net\."], check=False).stdout.splitlines()
    tree = node.run(
        ["find", "/etc", "/opt", "/var/lib", "/usr/local/lib", "/run", "/var/log", "-xdev", "-printf", "%p %y %m %l\n"]
    ).stdout.splitlines()
    kept = sorted(
        line
        for line in tree
        if not re.search(r"^/run/(cnictl-lab|netns|xtables)|^/usr/local/lib/python|^/run/nft", line)
    )
    files = [line.split()[0] for line in kept if line.split()[1] == "f" and line.startswith("/etc")]
    contents = node.run(["cat", *files]).stdout if files else ""
    return {
        "sysctl": [line for line in sysctls if not _VOLATILE.search(line)],
        "links": _without(json.loads(node.run(["ip", "-d", "-j", "link"]).stdout)),
        "addresses": _without(json.loads(node.run(["ip", "-j", "address"]).stdout)),
        "routes": [
            {key: value for key, value in route.items() if key != "flags"}  # linkdown depends on the state of the ports
            for route in json.loads(node.run(["ip", "-j", "route", "show", "table", "all"]).stdout)
        ],
        "nft": node.run(["nft", "-s", "list", "ruleset"]).stdout,
        "iptables": [
            re.sub(r" \[\d+:\d+\]", "", line)
            for program in ("iptables-save", "ip6tables-save")
            for line in node.run([program]).stdout.splitlines()
            if not line.startswith("#")
        ],
        "tree": kept,
        "contents": hashlib.sha256(contents.encode()).hexdigest(),
    }


def _without(links: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the links without timers and counters, which change by themselves."""
    for link in links:
        for kind in ("info_data", "info_slave_data"):
            data = link.get("linkinfo", {}).get(kind, {})
            for key in [key for key in data if key.endswith("_timer")]:
                del data[key]
    return [{key: value for key, value in link.items() if key not in ("stats64", "stats", "txqlen")} for link in links]


class Lines:
    """Read a running command's lines as they arrive.

    It reads around Python's buffer, whose content select(2) does not see.
    """

    def __init__(self, pipe: IO[str] | None) -> None:
        assert pipe is not None
        self._descriptor = pipe.fileno()
        self._rest = b""

    def next(self, bound: float = 20.0) -> str | None:
        """Return the next line without its end, or None if the command ends or `bound` seconds pass without a line."""
        while b"\n" not in self._rest:
            if not select.select([self._descriptor], [], [], bound)[0]:
                return None
            read = os.read(self._descriptor, 1 << 16)
            if not read:
                return None
            self._rest += read
        line, _, self._rest = self._rest.partition(b"\n")
        return line.decode()
