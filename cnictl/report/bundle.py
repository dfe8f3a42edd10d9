"""What a support bundle holds: each part gathered by itself, bounded in time and size, and without secrets."""

import io
import json
import os
import re
import tarfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import Any

from cnictl import __version__
from cnictl.core import durable
from cnictl.core.errors import CniError, Problem
from cnictl.core.paths import NODE_FILE
from cnictl.core.process import run
from cnictl.doctor import catalogue
from cnictl.doctor.facts import Facts
from cnictl.node import firewall, history, install, ipam, output_file, plugin_log, ranges, runtimes
from cnictl.node.ranges import CONF_ENDINGS
from cnictl.report import status

MOST = 1 << 20
"""Bytes of a part; of a longer one the end is kept."""
_BOUND = 20.0
"""Seconds for a command."""

_NAMES = r"token|password|passwd|secret|private.?key|client.?key|api.?key|access.?key|credential|authorization|psk"
_SECRET_KEY = re.compile(rf"(?i)({_NAMES}|kubeconfig|^auth$|^env$|^args$)")
_SECRET_TEXT = (
    re.compile(
        rf"(?i)((?:{_NAMES})[\w.-]*(?:\\?[\"'])?\s*[:=]\s*\\?[\"']?)"
        r"(?:(?<=\")(?:\\.|[^\"\\\n])*|(?<=')[^'\n]*|(?:bearer |basic )?[^\s\"',}]+)"
    ),
    # as options of a command: `--password x`, `-p` says too little
    re.compile(rf"(?i)((?<![\w-])--?[\w-]*(?:{_NAMES})[\w-]*\s+)(?!-)[^\s\"',}}]+"),
    re.compile(r"(?i)(\bbearer\s+)[^\s\"',}]+"),
    re.compile(r"( args=)\{.*\}(?= outcome=|$)", re.MULTILINE),
    re.compile(r"(?<=://)[^\s@\"']+(?=@)"),
    re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(?:-----END [A-Z ]*PRIVATE KEY-----|\Z)", re.DOTALL),
)
HIDDEN = "(left out)"

_COMMANDS = {
    "kernel.txt": ["uname", "-a"],
    "links.json": ["ip", "-j", "-d", "-s", "link"],
    "addresses.json": ["ip", "-j", "address"],
    "routes.json": ["ip", "-j", "route", "show", "table", "all"],
    "routes6.json": ["ip", "-j", "-6", "route", "show", "table", "all"],
    "policy.json": ["ip", "-j", "rule"],
    "policy6.json": ["ip", "-j", "-6", "rule"],
    "neighbours.json": ["ip", "-j", "neigh"],
    "bridge.json": ["bridge", "-j", "-d", "link"],
    "fdb.json": ["bridge", "-j", "fdb"],
    "sysctls.txt": ["sysctl", "-a", "--pattern", r"^net\.(ipv4\.(ip_forward|conf)|ipv6\.conf|bridge|netfilter)"],
    "nft.txt": ["nft", "-a", "list", "ruleset"],
    "iptables.txt": ["iptables-save", "-c"],
    "ip6tables.txt": ["ip6tables-save", "-c"],
    "iptables-legacy.txt": ["iptables-legacy-save", "-c"],
    "ip6tables-legacy.txt": ["ip6tables-legacy-save", "-c"],
    "firewalld.txt": ["firewall-cmd", "--list-all-zones"],
    "network-manager.txt": ["nmcli", "device"],
    "networkd.txt": ["networkctl", "--no-pager", "list"],
}  # fmt: skip


_VERSIONS = (
    ("nft", "--version"), ("iptables", "--version"), ("ip", "-V"), ("containerd", "--version"), ("crio", "--version"),
    ("podman", "--version"), ("docker", "--version"), ("firewall-cmd", "--version"), ("NetworkManager", "--version"),
    ("systemctl", "--version"),
)  # fmt: skip


@dataclass(frozen=True)
class Part:
    """One file of a bundle."""

    name: str
    holds: str
    """In words, for the list."""
    gather: Callable[[], str]
    """Its text. May raise anything."""


def parts() -> list[Part]:
    """All that a bundle of this host holds; nothing is looked at yet."""
    facts = Facts()
    found = [
        Part("cnictl.txt", "this cnictl's release and the time", _release),
        Part("node.toml", "what this node should be", lambda: _file(NODE_FILE)),
        Part("versions.txt", "releases of what it works with, and of the plugin", _versions),
        Part("status.json", "the node on one screen", lambda: _json(_status(facts))),
        Part("plan.json", "where it differs", lambda: _json([asdict(one) for one in facts.drift])),
        Part("doctor.json", "what doctor finds", lambda: _json(asdict(catalogue.examine(facts)))),
        Part("history.json", "the runs that changed it", lambda: _json([asdict(run) for run in history.runs()])),
        Part("leases.json", "leases and attachments", lambda: _json(_leases(facts))),
        Part("plugin.log", "the plugin's latest calls", lambda: _log(facts)),
        Part("confs.json", "CNI confs, without tokens and kubeconfigs", lambda: _json(_confs())),
        Part("runtimes.json", "where runtimes look", lambda: _json([asdict(one) for one in runtimes.find()])),
    ]
    found += [
        Part(name, " ".join(argv), _command(argv)) for name, argv in _COMMANDS.items() if firewall.has_command(argv[0])
    ]
    return found


def write(path: str, wanted: list[Part]) -> list[dict[str, Any]]:
    """Gather every part into a tar.gz at `path`, mode 0600, in one step; what became of each.

    A part that fails is named in the list with its reason, and the others are there all the same.
    """
    made, listed = io.BytesIO(), []
    with tarfile.open(fileobj=made, mode="w:gz") as archive:
        for part in wanted:
            text, why = _gathered(part)
            data = without_secrets(text).encode("utf-8", "replace")[-MOST:]
            listed.append({"name": part.name, "holds": part.holds, "bytes": len(data), "failed": why})
            if not why:
                _add(archive, part.name, data)
        _add(archive, "MANIFEST.json", _json({"left_out": _SECRET_KEY.pattern, "parts": listed}).encode())
    output_file.write(path, made.getvalue(), 0o600)
    return listed


def without_secrets(text: str) -> str:
    """The text without what keys that name a secret hold, credentials in addresses, and private keys."""
    for pattern in _SECRET_TEXT:
        text = pattern.sub(lambda found: (found[1] if found.re.groups else "") + HIDDEN, text)
    return text


def masked(value: Any) -> Any:
    """JSON values without what a key that names a secret holds."""
    if isinstance(value, dict):
        return {key: HIDDEN if _SECRET_KEY.search(str(key)) else masked(one) for key, one in value.items()}
    return [masked(one) for one in value] if isinstance(value, list) else value


def _gathered(part: Part) -> tuple[str, str]:
    try:
        return part.gather(), ""
    except Exception as error:
        said = getattr(error, "message", None) or getattr(error, "msg", None) or str(error)
        return "", said if isinstance(error, (Problem, CniError, OSError)) else f"{type(error).__name__}: {said}"


def _add(archive: tarfile.TarFile, name: str, data: bytes) -> None:
    entry = tarfile.TarInfo(f"cnictl-support/{name}")
    entry.size, entry.mtime, entry.mode = len(data), int(time.time()), 0o600
    archive.addfile(entry, io.BytesIO(data))


def _release() -> str:
    return f"cnictl {__version__}\n{time.strftime('%FT%T%z')}\n"


def _versions() -> str:
    said = [f"cnictl-bridge {install.installed(runtimes.bin_dirs(runtimes.find())).current or 'missing'}\n"]
    for argv in _VERSIONS:
        if firewall.has_command(argv[0]):
            done = run(list(argv), timeout=_BOUND, check=False)
            said.append(f"{argv[0]}: {(done.stdout + done.stderr).partition(chr(10))[0]}\n")
    return "".join(said)


def _status(facts: Facts) -> dict[str, Any] | None:
    return status.look(facts.spec) if facts.spec is not None else None


def _command(argv: list[str]) -> Callable[[], str]:
    def gather() -> str:
        done = run(argv, timeout=_BOUND, check=False)
        return done.stdout + done.stderr

    return gather


def _json(value: Any) -> str:
    return json.dumps(masked(value), indent=1, default=str) + "\n"


def _file(path: str) -> str:
    return durable.contents(path).decode("utf-8", "replace")


def _log(facts: Facts) -> str:
    return plugin_log.latest(plugin_log.path_of(facts.spec), MOST)


def _leases(facts: Facts) -> list[dict[str, Any]]:
    names = ipam.networks()
    return [ipam.observe(name, ranges.of_network(name, facts.spec).data_dir).as_json() for name in names]


def _confs() -> dict[str, Any]:
    return dict(_each_conf())


def _each_conf() -> Iterator[tuple[str, Any]]:
    for folder in runtimes.conf_dirs(runtimes.find()):
        for name in sorted(os.listdir(folder)) if os.path.isdir(folder) else ():
            if name.endswith(CONF_ENDINGS):
                try:
                    yield f"{folder}/{name}", json.loads(_file(f"{folder}/{name}"))
                except ValueError as error:
                    yield f"{folder}/{name}", f"is no JSON: {error}"
