"""Make one side's host with its pods and a host outside, and call the plugin there as a runtime does."""

import ctypes
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from tests.kernel.plugin.client import VALID, Answer, Host, Pod, new_host

Json = dict[str, Any]

REFERENCE = "reference"
OURS = "ours"
SIDES = (REFERENCE, OURS)
NETWORK = "parity"
DELEGATES = "/opt/delegates"
"""The folder where scenarios put their own IPAM plugins. CNI_PATH includes it on both sides."""

_ENVIRONMENT = {"CNI_PATH": f"/usr/lib/cni:{DELEGATES}", "TMPDIR": "/run"}
"""TMPDIR, because the reference's macspoofchk writes a temporary file, and only /run is writable on these hosts."""

_CLONE_NEWNET = 0x40000000
_libc = ctypes.CDLL(None, use_errno=True)

_UPLINK = """\
netns add outside
link add up0 type veth peer name up0 netns outside
address add 198.51.100.2/24 dev up0
address add 2001:db8:ff::2/64 dev up0 nodad
link set up0 up
"""
_OUTSIDE = """\
address add 198.51.100.1/24 dev up0
address add 2001:db8:ff::1/64 dev up0 nodad
link set up0 up
link set lo up
route add 10.16.0.0/12 via 198.51.100.2
route add 2001:db8:20::/43 via 2001:db8:ff::2
"""


@contextmanager
def inside(netns: str) -> Iterator[None]:
    """Move this thread, and the processes that it starts, into the network namespace at that path, and back again."""
    home = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        there = os.open(netns, os.O_RDONLY | os.O_CLOEXEC)
        try:
            _enter(there)
        finally:
            os.close(there)
        yield
    finally:
        _enter(home)
        os.close(home)


def _enter(descriptor: int) -> None:
    if _libc.setns(descriptor, _CLONE_NEWNET):
        raise OSError(ctypes.get_errno(), "setns")


@dataclass
class Place:
    """A side's plugin on its own host."""

    side: str
    host: Host
    executable: str
    pods: dict[str, Pod] = field(default_factory=dict)

    @property
    def type(self) -> str:
        """The conf's `type` on this side."""
        return "bridge" if self.side == REFERENCE else "cnictl-bridge"

    @property
    def netns(self) -> str:
        """The path of the host's network namespace for this process."""
        return f"/proc/{self.host.pid}/ns/net"

    def pod_netns(self, name: str) -> str:
        """Return the path of the network namespace of a pod or of `outside`, for this process."""
        return f"/proc/{self.host.pid}/root/run/netns/{name}"

    def call(
        self,
        verb: str,
        name: str,
        conf: Json,
        prev: Json | None = None,
        extra: Mapping[str, str] = MappingProxyType({}),
        ifname: str = "eth0",
    ) -> Answer:
        """Call the side's plugin for a pod; with an empty name for STATUS and GC, which are for no pod."""
        pod = None
        if name:
            made = self.pods[name]
            pod = Pod(made.container, made.netns, ifname)
        environment = self.host.environment(verb, pod, **{**_ENVIRONMENT, **extra})
        return self.host.call(environment, self.stdin(conf, prev), self.executable)

    def stdin(self, conf: Json, prev: Json | None = None) -> bytes:
        """Return a conf with this side's type, as the plugin reads it from stdin."""
        more = {} if prev is None else {"prevResult": prev}
        return json.dumps({"type": self.type, **conf, **more}).encode()

    def collect(self, conf: Json, valid: tuple[str, ...] = ()) -> Answer:
        """Call GC with these pods as the valid attachments."""
        kept = [{"containerID": self.pods[name].container, "ifname": "eth0"} for name in valid]
        return self.call("GC", "", {**conf, VALID: kept})

    def ip(self, *lines: str, netns: str = "") -> None:
        """Run commands of `ip` on the host or in a pod's namespace."""
        where = ("-n", netns) if netns else ()
        self.host.run("ip", *where, "-batch", "-", stdin="\n".join(lines) + "\n")


@contextmanager
def place(side: str, executable: str) -> Iterator[Place]:
    """Yield a new host with an uplink to a host outside and the namespaces of three pods: a, b, c."""
    with new_host() as host:
        names = ("a", "b", "c")
        host.run("ip", "-batch", "-", stdin=_UPLINK + "".join(f"netns add {name}\n" for name in names))
        made = Place(side, host, executable, {name: Pod(f"pod-{name}", f"/run/netns/{name}") for name in names})
        made.ip(*_OUTSIDE.splitlines(), netns="outside")
        yield made
