"""/etc/cnictl/node.toml, read strictly and written with care.

The file belongs to the operator: writing it keeps comments, order and whatever they aligned by hand.
"""

import difflib
import os
from dataclasses import fields
from typing import Any

import tomlkit
from tomlkit.exceptions import TOMLKitError
from tomlkit.items import AoT, Table

from cnictl.core import durable
from cnictl.core.errors import UsageProblem
from cnictl.core.paths import NODE_FILE
from cnictl.node import addressing, folders
from cnictl.node.spec import FAMILIED, NodeSpec, Peer, text_or_list, texts_of

_KINDS: dict[str, type] = {
    "subnet": str, "network": str, "name": str, "bridge": str, "uplink": str, "mtu": int, "nat": bool,
    "backend": str, "forward": bool, "external": str,
}  # fmt: skip
_REQUIRED = ("subnet", "network")
_ALWAYS_WRITTEN = ("subnet", "network", "name", "bridge", "nat", "backend")
_PLUGIN_KEYS = ("log_level", "log_file")
"""The [plugin] table's."""
_PEER_KEYS = tuple(field.name for field in fields(Peer))

_HEADER = """\
# What this node should be. `cnictl apply` makes it so; `cnictl status` says where the host differs.
# Written by cnictl, which keeps your comments; every key is explained in docs/node-file.md.

"""


def load(path: str = NODE_FILE) -> NodeSpec | None:
    """The spec in `path`; None if there is no such file.

    Raises UsageProblem for anything that is no node file or does not pass `cnictl.node.addressing.check`.
    """
    try:
        text = _contents(path).decode()
    except FileNotFoundError:
        return None
    except UnicodeDecodeError as error:
        raise UsageProblem(f"{path}: byte {error.start} is not UTF-8") from None
    try:
        return addressing.check(parse(text, path))
    except UsageProblem as problem:
        if problem.message.startswith(path):
            raise
        raise UsageProblem(f"{path}: {problem.message}", problem.mend) from None


def text_of_file(path: str = NODE_FILE) -> str:
    """The node file as it stands; empty if there is none."""
    try:
        return _contents(path).decode("utf-8", "surrogateescape")
    except FileNotFoundError:
        return ""


def _contents(path: str) -> bytes:
    try:
        return durable.contents(path)
    except IsADirectoryError:
        raise UsageProblem(f"{path} is a folder, not a file", f"move it away: mv {path} {path}.old") from None


def parse(text: str, path: str = NODE_FILE) -> NodeSpec:
    """The spec that a node file's text says, its form checked but not its addresses. Raises UsageProblem."""
    try:
        document: dict[str, Any] = tomlkit.parse(text).unwrap()
    except TOMLKitError as error:
        said = str(error).replace("character: '\\x00'", "end of the file")  # tomlkit's name for it
        raise UsageProblem(f"{path}: {said}") from None
    entries, plugin = document.pop("peers", []), document.pop("plugin", {})
    for key, value in document.items():
        _check_key(path, key, (*_KINDS, "plugin", "peers"))
        _check_kind(path, key, value, _KINDS[key])
    for key in _REQUIRED:
        if key not in document:
            raise UsageProblem(f"{path}: {key!r} is missing")
    for key, field in FAMILIED.items():
        if key in document:
            document[field] = _texts(document.pop(key), key in _REQUIRED)
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise UsageProblem(f"{path}: 'peers' has to be written as [[peers]] tables")
    if not isinstance(plugin, dict):
        raise UsageProblem(f"{path}: 'plugin' has to be written as a [plugin] table")
    for key, value in plugin.items():
        _check_key(f"{path}: plugin", key, _PLUGIN_KEYS)
        _check_kind(f"{path}: plugin", key, value, str)
    return NodeSpec(**document, **plugin, peers=tuple(_parse_peer(path, entry) for entry in entries))


def _parse_peer(path: str, entry: dict[str, Any]) -> Peer:
    for key, value in entry.items():
        _check_key(f"{path}: peers", key, _PEER_KEYS)
        _check_kind(f"{path}: peers", key, value, str)
    for key in ("pod_cidr", "via"):
        if key not in entry:
            raise UsageProblem(f"{path}: a [[peers]] table has no {key!r}")
    return Peer(**entry)


def _check_key(where: str, key: str, known: tuple[str, ...]) -> None:
    if key not in known:
        near = difflib.get_close_matches(key, known, 1)
        meant = f", probably meant {near[0]!r}" if near else f"; the keys are {', '.join(known)}"
        raise UsageProblem(f"{where}: unknown key {key!r}{meant}")


def _texts(value: str | list[str], required: bool) -> tuple[str, ...]:
    return ("",) if required and not value else texts_of(value)  # an empty one is named as such when it is checked


def _check_kind(where: str, key: str, value: Any, kind: type) -> None:
    if key in FAMILIED and isinstance(value, list):
        for one in value:
            _check_kind(where, f"an entry of {key}", one, str)
        return
    if type(value) is not kind:
        words = {str: "text in quotes", int: "a whole number", bool: "true or false"}
        raise UsageProblem(f"{where}: {key} = {value!r} has to be {words[kind]}")


def merged(text: str, spec: NodeSpec) -> str:
    """A node file's text changed as little as makes it say `spec`: comments and order stay."""
    if text and parse(text) == spec:
        return text
    document = tomlkit.parse(text or _HEADER)
    said = document.unwrap()
    defaults = NodeSpec(spec.subnets, spec.networks)
    for key in _KINDS:
        value = _value(spec, key)
        if key in said:
            same = texts_of(said[key]) == texts_of(value) if key in FAMILIED else said[key] == value
            if not same:
                document[key] = value
        elif key in _ALWAYS_WRITTEN or value != _value(defaults, key):
            _insert(document, key, value)
    _merge_plugin(document, spec)
    _merge_peers(document, spec.peers)
    return tomlkit.dumps(document)


def _value(spec: NodeSpec, key: str) -> Any:
    """What the file says under a key."""
    return text_or_list(getattr(spec, FAMILIED[key])) if key in FAMILIED else getattr(spec, key)


def _insert(document: tomlkit.TOMLDocument, key: str, value: Any) -> None:
    """Add a plain key. Behind a table it would become that table's, so tables are moved to the end."""
    tables = {name: document.pop(name) for name in ("plugin", "peers") if name in document}
    document.add(key, value)
    for name, table in tables.items():
        document.add(name, table)


def _merge_plugin(document: tomlkit.TOMLDocument, spec: NodeSpec) -> None:
    said = document.unwrap().get("plugin", {})
    wanted = {key: getattr(spec, key) for key in _PLUGIN_KEYS}
    changed = {key: value for key, value in wanted.items() if value != said.get(key, "")}
    if changed and "plugin" not in document:
        _insert(document, "plugin", tomlkit.table())
    for key, value in changed.items():
        document["plugin"][key] = value


def _merge_peers(document: tomlkit.TOMLDocument, peers: tuple[Peer, ...]) -> None:
    present = document.get("peers")
    kept: dict[str, Table] = {}
    if isinstance(present, AoT):
        kept = {str(table.get("pod_cidr")): table for table in present.body}
    if not peers:
        document.pop("peers", None)
        return
    entries = tomlkit.aot()
    for peer in peers:
        table = kept.get(peer.pod_cidr)
        if table is None:
            table = tomlkit.table()
            table.add("pod_cidr", peer.pod_cidr)
        for key in ("via", "dev"):
            value = getattr(peer, key)
            if (value or key in table) and table.get(key) != value:
                table[key] = value
        entries.append(table)
    if "peers" in document:
        document["peers"] = entries
    else:
        document.add("peers", entries)


def write_text(text: str, path: str = NODE_FILE) -> None:
    """Give the node file this text, in one step; an empty text removes it. Raises OSError."""
    if not text:
        if os.path.lexists(path):
            os.unlink(path)
        folders.unmake(os.path.dirname(path))
        return
    folders.make(os.path.dirname(path))
    durable.replace(path, text.encode("utf-8", "surrogateescape"), 0o644)
