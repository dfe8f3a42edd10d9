"""A minimal container runtime: hosts in their own namespaces, pods on them, and the plugin called as a process.

Environment and stdin are exactly those of spec 1.1.0, section 2. This module checks only the form of every
answer, not its content. It works for root and for an ordinary user, who gets a user namespace.
"""

import functools
import json
import os
import select
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from cnictl.core.attachments import CLAIM_MARK
from cnictl.node.plugin import plugin_version
from cnictl.node.plugin.interpreters import Interpreter
from tests.waiting import wait_for

Json = dict[str, Any]
Answered = TypeVar("Answered")

WALK_THROUGH: Json = {
    "cniVersion": "0.4.0",
    "name": "mynet",
    "type": "cnictl-bridge",
    "network": "10.244.0.0/20",
    "subnet": "10.244.0.0/24",
}
"""The walk-through's conf; only `type` differs."""

REFERENCE: Json = {
    "cniVersion": "0.4.0",
    "name": "mynet",
    "type": "bridge",
    "bridge": "cni0",
    "isDefaultGateway": True,
    "ipam": {"type": "host-local", "subnet": "10.244.0.0/24"},
}
"""The same network for the reference bridge plugin."""

RECORDS = "/var/lib/cnictl/attachments"
LEASES = "/var/lib/cni/networks"
PLUGIN_LOG = "/var/log/cnictl/plugin.log"

_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_FRESH = ("/run", "/var/lib", "/var/log", "/etc/cni", "/etc/cnictl", "/opt")
_REFERENCE = "/usr/lib/cni"
_BOUND = 60.0


class Unexpected(AssertionError):
    """Something differs from what the test needs; the message has all output."""


@functools.cache
def plugin_executable(patience: float = 0.0) -> str:
    """Return the launcher of a plugin laid out as by `cnictl plugin install`, in a folder of this test process.

    `patience` replaces the plugin's own number of seconds to wait for a lock.
    """
    code = plugin_version.sources()
    if patience:
        for name, constant in (("cnictl/core/locks.py", b"LOCK_WAIT"), ("cnictl/core/detach.py", b"SEIZE_WAIT")):
            before, separator, after = code[name].partition(b"\n" + constant + b" = 20.0\n")
            assert separator, name
            code[name] = before + b"\n%s = %g\n" % (constant, patience) + after
    folder = tempfile.TemporaryDirectory(prefix="cnictl-plugin-")
    _kept.append(folder)
    os.chmod(folder.name, 0o755)
    interpreter = Interpreter(os.path.realpath(sys.executable), str(sys.implementation.cache_tag))
    built = plugin_version.build(folder.name, "under-test", code, interpreter)
    if built.fault:
        raise Unexpected(built.fault)
    return built.launcher


_kept: list[tempfile.TemporaryDirectory[str]] = []


@dataclass(frozen=True)
class Answer:
    """The outcome of one plugin call."""

    status: int
    stdout: bytes
    stderr: bytes

    @property
    def document(self) -> Any:
        """The JSON document on stdout."""
        try:
            return json.loads(self.stdout)
        except ValueError:
            raise Unexpected(f"exit {self.status}, no JSON: {self.stdout!r} {self.stderr!r}") from None

    @property
    def result(self) -> Json:
        """The result of a successful call, or {} if the verb has none."""
        if self.status != 0 or self.stderr:
            raise Unexpected(f"exit {self.status}: {self.stdout!r} {self.stderr!r}")
        document = self.document if self.stdout else {}
        assert isinstance(document, dict)
        return document

    @property
    def error(self) -> Json:
        """The error of a failed call: one error object (spec section 5), exit status 1 and an empty stderr."""
        document = self.document
        assert self.status == 1, (self.status, document)
        assert isinstance(document, dict)
        assert {"cniVersion", "code", "msg"} <= set(document) <= {"cniVersion", "code", "msg", "details"}, document
        assert isinstance(document["code"], int) and document["code"] > 0
        assert all(isinstance(document[key], str) for key in document if key != "code")
        assert document["msg"]
        assert not self.stderr, self.stderr
        assert b"Traceback" not in self.stdout
        return document

    @property
    def code(self) -> int:
        """The CNI error code of a failed call."""
        return int(self.error["code"])

    @property
    def address(self) -> str:
        """The address that ADD assigned, without its prefix length."""
        return str(self.result["ips"][0]["address"]).partition("/")[0]


@dataclass(frozen=True)
class Pod:
    """A container as its runtime knows it: an id, a namespace and an interface name."""

    container: str
    netns: str
    ifname: str = "eth0"


@dataclass
class Host:
    """A host in its own namespaces: `run` runs a command there, `plugin` calls the plugin under test."""

    pid: int
    enter: tuple[str, ...]
    conf: Json = field(default_factory=lambda: dict(WALK_THROUGH))

    def run(self, *argv: str, stdin: str = "", check: bool = True, bound: float = _BOUND) -> str:
        """Run a command on the host and return its stdout. Raises Unexpected if the command fails."""
        done = subprocess.run(
            [*self.enter, *argv],
            input=stdin,
            capture_output=True,
            text=True,
            timeout=bound,
            env={"PATH": _PATH, "LANG": "C.UTF-8"},
            check=False,
        )
        if check and done.returncode:
            raise Unexpected(f"{' '.join(argv)}: exit {done.returncode}: {done.stdout}{done.stderr}")
        return done.stdout

    def inside(self, pod: Pod, *argv: str, check: bool = True) -> str:
        """Run a command in the pod's network namespace and return its stdout."""
        return self.run("nsenter", f"--net={pod.netns}", *argv, check=check)

    def pods(self, count: int, prefix: str = "pod") -> list[Pod]:
        """Create `count` network namespaces."""
        names = [f"{prefix}{number}" for number in range(count)]
        lines = [f"netns add {name}" for name in names]
        self.run("ip", "-batch", "-", stdin="\n".join(lines) + "\n")
        return [Pod(name, f"/run/netns/{name}") for name in names]

    def pod(self, name: str = "pod") -> Pod:
        """Create a network namespace."""
        self.run("ip", "netns", "add", name)
        return Pod(name, f"/run/netns/{name}")

    def kill(self, pod: Pod) -> None:
        """Delete a pod's namespace, as when its last process ends, and wait until its links are gone.

        The kernel's own queue deletes namespaces one after another, after the command has returned.
        """
        peers = {
            link["link_index"] for link in json.loads(self.inside(pod, "ip", "-j", "link")) if "link_index" in link
        }
        self.run("ip", "netns", "delete", os.path.basename(pod.netns))
        wait_for(
            lambda: not peers & {link["ifindex"] for link in json.loads(self.run("ip", "-j", "link"))},
            f"the links of {pod.netns} disappear",
        )

    def environment(self, verb: str, pod: Pod | None = None, **extra: str) -> dict[str, str]:
        """Return the variables that a runtime sets for a call. An empty `extra` removes the variable."""
        variables = {"CNI_COMMAND": verb, "CNI_PATH": _REFERENCE, "PATH": _PATH}
        if pod is not None:
            variables |= {"CNI_CONTAINERID": pod.container, "CNI_NETNS": pod.netns, "CNI_IFNAME": pod.ifname}
        return {key: value for key, value in (variables | extra).items() if value}

    def call(
        self,
        environment: Mapping[str, str],
        stdin: bytes,
        executable: str = "",
        through: Sequence[str] = (),
        bound: float = _BOUND,
    ) -> Answer:
        """Run a plugin with exactly this environment and stdin."""
        done = subprocess.run(
            [*self.enter, *through, executable or plugin_executable()],
            input=stdin,
            capture_output=True,
            timeout=bound,
            env=dict(environment),
            check=False,
        )
        return Answer(done.returncode, done.stdout, done.stderr)

    def plugin(
        self, verb: str, pod: Pod | None = None, conf: Json | None = None, prev: Json | None = None, **extra: str
    ) -> Answer:
        """Call the plugin under test as a runtime would; `prev` is passed as prevResult."""
        return self.call(self.environment(verb, pod, **extra), self.stdin(conf, prev))

    def add(self, pod: Pod, conf: Json | None = None, **extra: str) -> Json:
        """Call ADD, which must succeed, and return its result."""
        return self.plugin("ADD", pod, conf, None, **extra).result

    def delete(self, pod: Pod, conf: Json | None = None, prev: Json | None = None, **extra: str) -> None:
        """Call DEL, which must succeed without output."""
        answer = self.plugin("DEL", pod, conf, prev, **extra)
        assert answer.result == {} and answer.stdout == b""

    def collect(self, valid: Sequence[Pod], conf: Json | None = None) -> Answer:
        """Call GC; `valid` are the remaining attachments."""
        kept = [{"containerID": pod.container, "ifname": pod.ifname} for pod in valid]
        return self.plugin("GC", conf={**self.conf, "cniVersion": "1.1.0", **(conf or {}), VALID: kept})

    def stdin(self, conf: Json | None = None, prev: Json | None = None) -> bytes:
        """Return the request configuration as bytes."""
        document = dict(self.conf if conf is None else conf)
        if prev is not None:
            document["prevResult"] = prev
        return json.dumps(document).encode()

    def reference(self, kind: str, verb: str, pod: Pod, conf: Json) -> Answer:
        """Call one of the distribution's reference plugins."""
        return self.call(self.environment(verb, pod), json.dumps(conf).encode(), f"{_REFERENCE}/{kind}")

    def start(self, verb: str, pod: Pod, through: Sequence[str] = ()) -> subprocess.Popen[bytes]:
        """Start a call without waiting for it; `finish` waits."""
        with tempfile.TemporaryFile() as request:
            request.write(self.stdin())
            request.seek(0)
            return subprocess.Popen(
                [*self.enter, *through, plugin_executable()],
                stdin=request,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                env=self.environment(verb, pod),
            )

    def links(self) -> dict[str, Json]:
        """Return the host's links by name, as `ip -d -j link` prints them."""
        return {link["ifname"]: link for link in json.loads(self.run("ip", "-d", "-j", "link"))}

    def ports(self, bridge: str = "cni0") -> set[str]:
        """Return the names of a bridge's ports."""
        return {name for name, link in self.links().items() if link.get("master") == bridge}

    def pod_link(self, pod: Pod) -> Json | None:
        """Return the pod's interface with its addresses, or None."""
        said = self.inside(pod, "ip", "-j", "address", "show", "dev", pod.ifname, check=False)
        return json.loads(said)[0] if said.strip() else None

    def routes(self, pod: Pod) -> list[Json]:
        """Return the pod's routes, without those that the kernel adds with an address."""
        listed: list[Json] = json.loads(self.inside(pod, "ip", "-j", "route"))
        return [route for route in listed if route.get("protocol") != "kernel"]

    def pings(self, pod: Pod, address: str) -> bool:
        """Send one echo request from the pod and return whether it is answered."""
        return " 1 received" in self.inside(pod, "ping", "-n", "-c1", "-W2", address, check=False)

    def path(self, inside: str) -> Path:
        """Return the path by which this process reaches the host's file `inside` (an absolute path)."""
        return Path(f"/proc/{self.pid}/root{inside}")

    def leases(self, network: str = "mynet") -> dict[str, str]:
        """Return the content of each lease file, by address."""
        folder = self.path(f"{LEASES}/{network}")
        if not folder.is_dir():
            return {}
        files = (file for file in folder.iterdir() if not file.name.startswith("l"))  # `lock`, `last_reserved_ip.N`
        return {file.name: file.read_bytes().decode() for file in files}

    def records(self, network: str = "mynet") -> set[str]:
        """Return the names of the attachment records."""
        folder = self.path(f"{RECORDS}/{network}")
        return {file.name for file in folder.iterdir() if file.name != CLAIM_MARK} if folder.is_dir() else set()

    def traces(self) -> Json:
        """Return all that an attachment could leave on the host: links, addresses, routes, rules, leases, records.

        Folders, the claim mark, and the store's lock and last address belong to the network, not to an attachment.
        """
        links: dict[str, Json] = {
            name: {key: link.get(key) for key in ("flags", "mtu", "master", "address", "ifalias", "ifindex")}
            for name, link in self.links().items()
        }
        for link in links.values():
            link["flags"] = sorted(set(link["flags"]) - {"NO-CARRIER", "LOWER_UP"})  # these depend on other links
        addresses = json.loads(self.run("ip", "-j", "address"))
        state = self.path("/var/lib")
        files = {
            str(file.relative_to(state)): file.read_bytes()
            for file in sorted(state.rglob("*"))
            if file.is_file() and not file.name.startswith(("lock", "last_reserved_ip.", CLAIM_MARK))
        }
        return {
            "links": links,
            "addresses": {
                interface["ifname"]: [a["local"] for a in interface["addr_info"] if not a["local"].startswith("fe80:")]
                for interface in addresses
            },
            "routes": [
                {key: value for key, value in route.items() if key != "flags"}
                for route in json.loads(self.run("ip", "-j", "route"))
            ],
            "rules": self.run("nft", "-s", "list", "ruleset"),
            "files": files,
        }


VALID = "cni.dev/valid-attachments"


def finish(started: subprocess.Popen[bytes], bound: float = _BOUND) -> Answer:
    """Wait for a call that `Host.start` began."""
    stdout, stderr = started.communicate(timeout=bound)
    return Answer(started.returncode, stdout, stderr)


@contextmanager
def new_host() -> Iterator[Host]:
    """Yield a host with its own network and files; everything on it ends with the block."""
    flags = ["--net", "--mount", "--pid", "--fork", "--kill-child=KILL", "--propagation=private"]
    if os.geteuid() != 0:
        flags += ["--user", "--map-root-user"]
    covers = "".join(f"if [ -d {path} ]; then mount -t tmpfs -o mode=755 host {path}; fi; " for path in _FRESH)
    # on some machines an ordinary user can't make / read-only, but can't write to it either
    script = f"set -e; {covers} mount -o remount,bind,ro / 2>/dev/null || true; ip link set lo up; echo up; exec cat"
    holder = subprocess.Popen(
        ["unshare", *flags, "sh", "-c", script],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={"PATH": _PATH},
        cwd="/",
    )
    assert holder.stdout is not None and holder.stderr is not None
    try:
        if not select.select([holder.stdout], [], [], _BOUND)[0] or holder.stdout.readline() != b"up\n":
            holder.kill()
            raise Unexpected(f"the host did not come up: {holder.stderr.read().decode()}")
        pid = int(Path(f"/proc/{holder.pid}/task/{holder.pid}/children").read_text())
        enter = [shutil.which("nsenter", path=_PATH) or "nsenter", f"--target={pid}", "--net", "--mount"]
        if os.geteuid() != 0:
            enter += ["--user", "--preserve-credentials"]
        yield Host(pid, (*enter, "--"))
    finally:
        holder.send_signal(signal.SIGKILL)
        holder.communicate()
