"""Collect a support bundle. Each part is limited in time and size.

`harmless` and `harmless_text` mask what is not known to be harmless.
"""

import io
import json
import os
import tarfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import Any

from cnictl import __version__
from cnictl.core import durable
from cnictl.core.errors import Problem
from cnictl.core.paths import NODE_FILE
from cnictl.core.process import run
from cnictl.doctor import catalogue
from cnictl.doctor.facts import Facts
from cnictl.node.addresses import lease_list
from cnictl.node.addresses.ranges import CONF_ENDINGS
from cnictl.node.host import firewall, plugin_log, runtimes
from cnictl.node.plugin import install, output_file
from cnictl.node.runs import history
from cnictl.node.spec import node_file
from cnictl.views import harmless_text, status
from cnictl.views.harmless import HIDDEN, Words, of_cnictl, of_kernel

MOST = 1 << 20
"""The size limit of a part in bytes. Only the end of a longer part is kept."""
_BOUND = 20.0
"""Seconds that a command may take."""

Form = Callable[[str, Words], str]
"""Masks a command's output."""

_VERSIONS = (
    ("nft", "--version"), ("iptables", "--version"), ("ip", "-V"), ("containerd", "--version"), ("crio", "--version"),
    ("podman", "--version"), ("docker", "--version"), ("firewall-cmd", "--version"), ("NetworkManager", "--version"),
    ("systemctl", "--version"),
)  # fmt: skip


@dataclass(frozen=True)
class Part:
    """One file of a support bundle."""

    name: str
    holds: str
    """Its content, in words."""
    gather: Callable[[Words], str]
    """Returns its text, masked. May raise anything."""


def parts() -> list[Part]:
    """Return the parts of this host's support bundle. Nothing is read yet."""
    facts = Facts()
    listed = [
        Part("cnictl.txt", "this cnictl's version, and the time", lambda _: _version_and_time()),
        Part("node.toml", "the node file", lambda words: harmless_text.settings(_file(NODE_FILE), words)),
        Part("versions.txt", "versions of other programs, and of the plugin", lambda words: words.prose(_versions())),
        Part("status.json", "the output of cnictl status", lambda words: _json(_status(facts), words)),
        Part(
            "plan.json",
            "differences from node.toml",
            lambda words: _json([asdict(step) for step in facts.drift], words),
        ),
        Part("doctor.json", "what doctor finds", lambda words: _json(asdict(catalogue.examine(facts)), words)),
        Part("history.json", "the runs that changed this node", lambda words: _json(_history(), words)),
        Part("leases.json", "leases and attachments", lambda words: _json(_leases(facts), words)),
        Part("plugin.log", "the plugin's latest calls", lambda words: harmless_text.log(_log(facts), words)),
        Part("confs.json", "CNI confs, only known keys", lambda words: json.dumps(_confs(words), indent=1) + "\n"),
        Part("runtimes.json", "the runtimes, and the folders that they read", lambda words: _json(_runtimes(), words)),
    ]
    listed += [
        Part(name, " ".join(argv), _command(argv, form))
        for name, (form, argv) in _COMMANDS.items()
        if firewall.has_command(argv[0])
    ]
    return listed


def names_here() -> set[str]:
    """Return the names of what exists here: namespaces, networks, pods, links to peers, the host itself."""
    known = {os.uname().nodename, *_listed("/run/netns")}
    try:
        spec = node_file.load()
        if spec is not None:
            known |= {spec.name, spec.bridge, spec.uplink, *(peer.dev for peer in spec.known_peers)}
        for listing in lease_list.listings(spec):
            known.add(listing.network)
            for row in listing.rows:
                if row.record is not None:  # another program may write anything into a lease
                    known |= {row.container, row.ifname, row.pod, *row.pod.split("/")}
    except (Problem, OSError):
        pass  # texts then have the names masked; the fields that hold a name still show it
    return known


def _listed(folder: str) -> list[str]:
    try:
        return os.listdir(folder)
    except OSError:
        return []


def write(path: str, wanted: list[Part]) -> list[dict[str, Any]]:
    """Write every part into a tar.gz at `path`, mode 0600, and return the list of parts as JSON values.

    A part that fails is listed with its reason and is missing from the archive.
    """
    words = Words(names_here(), _listed("/sys/class/net"))
    made, listed = io.BytesIO(), []
    with tarfile.open(fileobj=made, mode="w:gz") as archive:
        for part in wanted:
            text, why = _gathered(part, words)
            data = text.encode("utf-8", "replace")[-MOST:]
            listed.append({"name": part.name, "holds": part.holds, "bytes": len(data), "failed": why})
            if not why:
                _add(archive, part.name, data)
        manifest = {"left_out": f"values that are not known to be harmless are shown as {HIDDEN}", "parts": listed}
        _add(archive, "MANIFEST.json", (json.dumps(manifest, indent=1) + "\n").encode())
    output_file.write(path, made.getvalue(), 0o600)
    return listed


def _gathered(part: Part, words: Words) -> tuple[str, str]:
    try:
        return part.gather(words), ""
    except Exception as error:
        message = getattr(error, "message", None) or getattr(error, "msg", None) or str(error)
        why = message if isinstance(error, (Problem, OSError)) else f"{type(error).__name__}: {message}"
        return "", words.prose(why)


def _add(archive: tarfile.TarFile, name: str, data: bytes) -> None:
    entry = tarfile.TarInfo(f"cnictl-support/{name}")
    entry.size, entry.mtime, entry.mode = len(data), int(time.time()), 0o600
    archive.addfile(entry, io.BytesIO(data))


def _version_and_time() -> str:
    return f"cnictl {__version__}\n{time.strftime('%FT%T%z')}\n"


def _versions() -> str:
    lines = [f"cnictl-bridge {install.installed(runtimes.bin_dirs(runtimes.find())).current or 'missing'}\n"]
    for argv in _VERSIONS:
        if firewall.has_command(argv[0]):
            done = run(list(argv), timeout=_BOUND, check=False)
            lines.append(f"{argv[0]}: {(done.stdout + done.stderr).partition(chr(10))[0]}\n")
    return "".join(lines)


def _status(facts: Facts) -> dict[str, Any] | None:
    return status.collect(facts.spec) if facts.spec is not None else None


def _command(argv: list[str], form: Form) -> Callable[[Words], str]:
    def gather(words: Words) -> str:
        done = run(argv, timeout=_BOUND, check=False)
        return form(done.stdout, words) + words.prose(done.stderr)

    return gather


def _of_kernel(text: str, words: Words) -> str:
    """Return JSON that `ip` or `bridge` printed, masked, with an entry on each line."""
    entries = json.loads(text or "[]")
    return "[" + ",\n".join(json.dumps(of_kernel(entry, words)) for entry in entries) + "]\n"


def _prose(text: str, words: Words) -> str:
    return words.prose(text)


def _json(value: Any, words: Words) -> str:
    shown = of_cnictl(value, words, lambda text: harmless_text.text_of_file(text, words))
    return json.dumps(shown, indent=1, default=str) + "\n"


def _history() -> list[dict[str, Any]]:
    return [asdict(run) for run in history.runs()]


def _runtimes() -> list[dict[str, Any]]:
    return [asdict(runtime) for runtime in runtimes.find()]


def _file(path: str) -> str:
    return durable.contents(path).decode("utf-8", "replace")


def _log(facts: Facts) -> str:
    return plugin_log.latest(plugin_log.path_of(facts.spec), MOST)


def _leases(facts: Facts) -> list[dict[str, Any]]:
    return [listing.as_json() for listing in lease_list.listings(facts.spec)]


def _confs(words: Words) -> dict[str, Any]:
    return {words.prose(path): shown for path, shown in _each_conf(words)}


def _each_conf(words: Words) -> Iterator[tuple[str, Any]]:
    for folder in runtimes.conf_dirs(runtimes.find()):
        for name in sorted(_listed(folder)):
            if name.endswith(CONF_ENDINGS):
                try:
                    yield f"{folder}/{name}", harmless_text.conf(json.loads(_file(f"{folder}/{name}")), words)
                except ValueError as error:
                    yield f"{folder}/{name}", f"is not valid JSON: {words.prose(str(error))}"
                except OSError as error:
                    yield f"{folder}/{name}", f"can't be read: {error.strerror}"


_SETTINGS = r"^net\.(ipv4\.(ip_forward|conf)|ipv6\.conf|bridge|netfilter)"
_COMMANDS: dict[str, tuple[Form, list[str]]] = {
    "kernel.txt": (_prose, ["uname", "-a"]),
    "links.json": (_of_kernel, ["ip", "-j", "-d", "-s", "link"]),
    "addresses.json": (_of_kernel, ["ip", "-j", "address"]),
    "routes.json": (_of_kernel, ["ip", "-j", "route", "show", "table", "all"]),
    "routes6.json": (_of_kernel, ["ip", "-j", "-6", "route", "show", "table", "all"]),
    "policy.json": (_of_kernel, ["ip", "-j", "rule"]),
    "policy6.json": (_of_kernel, ["ip", "-j", "-6", "rule"]),
    "neighbours.json": (_of_kernel, ["ip", "-j", "neigh"]),
    "bridge.json": (_of_kernel, ["bridge", "-j", "-d", "link"]),
    "fdb.json": (_of_kernel, ["bridge", "-j", "fdb"]),
    "sysctls.txt": (harmless_text.kernel_settings, ["sysctl", "-a", "--pattern", _SETTINGS]),
    "nft.txt": (harmless_text.nft, ["nft", "-a", "list", "ruleset"]),
    "iptables.txt": (harmless_text.iptables, ["iptables-save", "-c"]),
    "ip6tables.txt": (harmless_text.iptables, ["ip6tables-save", "-c"]),
    "iptables-legacy.txt": (harmless_text.iptables, ["iptables-legacy-save", "-c"]),
    "ip6tables-legacy.txt": (harmless_text.iptables, ["ip6tables-legacy-save", "-c"]),
    "firewalld.txt": (harmless_text.firewalld, ["firewall-cmd", "--list-all-zones"]),
    "network-manager.txt": (_prose, ["nmcli", "-f", "DEVICE,TYPE,STATE", "device"]),
    "networkd.txt": (_prose, ["networkctl", "--no-pager", "list"]),
}  # fmt: skip
