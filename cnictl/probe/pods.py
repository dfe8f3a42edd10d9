"""Create probe pods: short-lived namespaces, attached through the installed plugin and always removed.

Each pod has a state file under /run/cnictl/probe that says what to undo. Its owner writes the file first and holds it
under flock. A file that nobody holds comes from a killed command; the next command cleans it up.
"""

import fcntl
import json
import os
import secrets
import select
import signal
import socket
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from types import FrameType

from cnictl.core import durable
from cnictl.core.errors import Problem
from cnictl.core.netlink.rtnetlink import Netlink, get_link
from cnictl.core.process import run
from cnictl.node.spec.node_spec import of_family
from cnictl.node.spec.pod_names import PROBE_NAMESPACE, PROBE_PREFIX
from cnictl.probe.chain import (
    Attachment,
    Chain,
    Json,
    PluginFailed,
    addresses,
    host_ends,
    kubernetes_args,
    name_servers,
)
from cnictl.probe.icmp import ECHO_REQUEST, kind_of
from cnictl.probe.ports import SERVED_PORT, Listener

STATE_DIR = "/run/cnictl/probe"
NETNS_DIR = "/run/netns"
_CARRIER_SECONDS = 1.0
_CARRYING = (0, 6)  # linux/if.h, IF_OPER_UNKNOWN and IF_OPER_UP
_ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@dataclass(frozen=True)
class CheckedPod:
    """A pod that checks run from or to."""

    name: str
    netns: str
    addresses: tuple[str, ...]
    """The pod's addresses; only the first one of each family is used."""
    host_veth: str = ""
    dns: tuple[str, ...] = ()
    """The DNS servers in the result of its ADD."""
    host_port: int = 0
    """The TCP port of this host that is mapped to the pod's `SERVED_PORT`; 0 if none is."""
    port_fault: str = ""
    """Why the plugin did not map a port; empty if it did, or if no mapping was requested."""
    host_end: str = ""
    """The host's end of a probe pod's link, on whichever bridge its conf puts it."""
    ifname: str = "eth0"
    """The pod's end of its link."""

    @property
    def address(self) -> str:
        """The address that runtimes use as the pod's; empty if it has none."""
        return next(iter(self.addresses), "")

    def in_family_of(self, like: str) -> "CheckedPod":
        """Return the pod with only its address in the family of `like`, or with no address."""
        address = of_family(self.addresses, like)
        return replace(self, addresses=(address,) if address else ())


@contextmanager
def probe_pods(chain: Chain, count: int, mapped: bool = False) -> Iterator[list[CheckedPod]]:
    """Make `count` pods at the same time, and remove them at the end. `mapped`: map a port of this host to the last.

    A signal that would end this process removes them too and raises KeyboardInterrupt. Raises PluginFailed, Problem.
    """
    previous = {number: signal.signal(number, _interrupt) for number in _ENDING}
    making = [_Making(chain, mapped and number == count - 1) for number in range(count)]
    pool = ThreadPoolExecutor(count)
    failed = False
    try:
        try:
            yield list(pool.map(_Making.make, making))
        except BaseException:
            failed = True
            raise
        finally:
            _ignore_signals()
    finally:
        pool.shutdown()
        with ThreadPoolExecutor(count) as undoing:
            problems = [problem for problem in undoing.map(_Making.unmake, making) if problem]
        for number, handler in previous.items():
            signal.signal(number, handler)
        if problems and not failed:  # an earlier error is the one to report
            raise problems[0]


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    """Interrupt once: a second signal must not stop the clean-up after the first."""
    _ignore_signals()
    raise KeyboardInterrupt


def _ignore_signals() -> None:
    """Ignore these signals in this process and in the plugins that it starts. Only SIGKILL still ends them."""
    for number in _ENDING:
        signal.signal(number, signal.SIG_IGN)


class _Making:
    """Creates one probe pod (state file, namespace, ADD), and removes it in reverse order."""

    def __init__(self, chain: Chain, mapped: bool) -> None:
        self._chain = chain
        self._name = f"{PROBE_PREFIX}{secrets.token_hex(4)}"
        self._state = -1
        self._reserved = _reserve_port() if mapped else None
        self._port: int = self._reserved.getsockname()[1] if self._reserved is not None else 0

    def make(self) -> CheckedPod:
        """Make the pod. The caller must call `unmake` even after an error. Raises PluginFailed, Problem."""
        os.makedirs(STATE_DIR, 0o700, exist_ok=True)
        hidden = f"{STATE_DIR}/.{self._name}"  # a sweep must not see the file before it is locked
        self._state = os.open(hidden, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        fcntl.flock(self._state, fcntl.LOCK_EX)
        self._note(None)
        os.rename(hidden, f"{STATE_DIR}/{self._name}")
        run(["ip", "netns", "add", self._name])
        result, port_fault = self._add()
        self._note(result)
        pod_addresses = addresses(result)
        if not pod_addresses:
            raise Problem(f"plugin chain {' → '.join(self._chain.types)}: its result has no address")
        ends = host_ends(result)
        _await_carrier(ends)
        return CheckedPod(
            self._name, f"{NETNS_DIR}/{self._name}", tuple(pod_addresses), "", tuple(name_servers(result)), self._port,
            port_fault, ends[-1] if ends else "",
        )  # fmt: skip

    def _add(self) -> tuple[Json, str]:
        """Call ADD, without the port mapping if its plugin refuses it; return the result and that plugin's error."""
        try:
            return self._chain.add(_attachment(self._name, self._port)), ""
        except PluginFailed as failed:
            if not self._port or not self._chain.maps_ports_by(failed.plugin):
                raise
            self._chain.delete(_attachment(self._name, self._port), None)
            self._port = 0
            self._note(None)
            return self._chain.add(_attachment(self._name)), str(failed)

    def unmake(self) -> Problem | None:
        """Undo everything. Return the first error; the state file is then kept for the next command."""
        if self._reserved is not None:
            self._reserved.close()
        if self._state < 0:
            return None
        problem = undo(f"{STATE_DIR}/{self._name}")
        os.close(self._state)
        return problem

    def _note(self, result: Json | None) -> None:
        document = {
            "conf": self._chain.conf, "bin_dirs": self._chain.bin_dirs, "result": result, "host_port": self._port
        }  # fmt: skip
        os.pwrite(self._state, json.dumps(document).encode(), 0)


def _await_carrier(links: list[str]) -> None:
    """Wait until the host ends of a pod have a carrier, at most `_CARRIER_SECONDS`.

    A bridge gets its carrier from its first port in deferred work of the kernel (net/core/link_watch.c), and drops
    packets until then. A container takes longer than that to start, but a ping does not.
    """
    deadline = time.monotonic() + _CARRIER_SECONDS
    with Netlink() as netlink:
        for name in links:
            while (link := get_link(netlink, name)) and link.operstate not in _CARRYING:
                if time.monotonic() > deadline:
                    return
                select.select([], [], [], 0.002)


def _reserve_port() -> socket.socket:
    """Return a socket that reserves a free port of this host. It does not listen, so the host refuses connections."""
    try:
        reserved = socket.socket(socket.AF_INET6)
        reserved.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        reserved.bind(("::", 0))
    except OSError:  # the host has no IPv6
        reserved = socket.socket(socket.AF_INET)
        reserved.bind(("", 0))
    return reserved


def _attachment(name: str, host_port: int = 0) -> Attachment:
    mappings = ((host_port, SERVED_PORT),) if host_port else ()
    args = kubernetes_args(PROBE_NAMESPACE, name, name)
    netns = f"{NETNS_DIR}/{name}"
    return Attachment(name, netns if os.path.exists(netns) else "", args=args, port_mappings=mappings)


def undo(path: str) -> Problem | None:
    """Call DEL for a state file's pod, remove its namespace, then the file. Return the first Problem, or None."""
    name = os.path.basename(path)
    problem: Problem | None = None
    text = durable.contents(path)
    try:
        noted = json.loads(text)
        attachment = _attachment(name, int(noted.get("host_port", 0)))
        Chain(noted["conf"], noted["bin_dirs"]).delete(attachment, noted["result"])
    except ValueError:
        pass  # a full file system left half a file: the namespace takes the veth with it, and the lease becomes stale
    except Problem as failed:
        problem = failed
    if os.path.exists(f"{NETNS_DIR}/{name}"):
        try:
            run(["ip", "netns", "delete", name])
        except Problem as failed:
            problem = problem or failed
    if problem is None:
        os.unlink(path)
    return problem


def sweep() -> list[str]:
    """Remove the pods that killed commands left; return their names. Pods of running commands are kept."""
    swept = []
    try:
        names = sorted(os.listdir(STATE_DIR))
    except FileNotFoundError:
        return []
    for name in names:
        if name.startswith("."):
            continue  # the pod does not exist yet
        path = f"{STATE_DIR}/{name}"
        try:
            descriptor = os.open(path, os.O_RDWR | durable.AT_ONCE)
        except FileNotFoundError:
            continue
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            continue
        else:
            if os.fstat(descriptor).st_nlink:
                undo(path)
                if os.path.exists(path):
                    os.unlink(path)  # the veth is gone with its namespace; leases that DEL left are stale
                swept.append(name)
        finally:
            os.close(descriptor)
    return swept


def answer(
    pod: CheckedPod, seconds: float, receivers: Sequence[socket.socket], listeners: Sequence[Listener] = ()
) -> Iterator[str]:
    """Yield each new source of echo requests, as the pod sees it, until `seconds` have passed.

    `receivers` are the pod's echo sockets, one of each family. `listeners` answer TCP and UDP meanwhile.
    """
    by_socket = {endpoint: listener for listener in listeners for endpoint in (listener.tcp, listener.udp)}
    deadline = time.monotonic() + seconds
    sources: set[str] = set()
    while (left := deadline - time.monotonic()) > 0:
        for ready in select.select([*receivers, *by_socket], [], [], left)[0]:
            if ready in by_socket:
                by_socket[ready].answer(ready)
                continue
            packet, origin = ready.recvfrom(2048)
            ipv6 = ready.family == socket.AF_INET6
            message = packet if ipv6 else packet[(packet[0] & 15) * 4 :]
            source = str(origin[0])
            if kind_of(message, ipv6)[0] == ECHO_REQUEST and source not in sources and source not in pod.addresses:
                sources.add(source)
                yield source
