"""Read /etc/cnictl/node.toml strictly, and edit it as little as possible.

The file belongs to the operator: edits keep comments, order and alignment.
"""

import codecs
import difflib
import os
from dataclasses import fields
from functools import lru_cache
from typing import Any

from tomlkit.exceptions import TOMLKitError

import cnictl
from cnictl.core import durable
from cnictl.core.cidr import AddressError, format_address, parse_address, parse_cidr
from cnictl.core.errors import Problem, UsageProblem
from cnictl.core.paths import NODE_FILE
from cnictl.node.plugin import files
from cnictl.node.spec import addressing, swapped, toml_fault, toml_text
from cnictl.node.spec.node_spec import (
    FAMILIED,
    FILE,
    FOLDERS,
    KUBERNETES,
    NodeSpec,
    Peer,
    Reach,
    text_or_list,
    texts_of,
)
from cnictl.node.spec.toml_text import Block
from cnictl.node.state import folders, learned_peers, original_state
from cnictl.node.state.run_lock import tell

_KINDS: dict[str, type] = {
    "subnet": str, "network": str, "name": str, "bridge": str, "uplink": str, "mtu": int, "nat": bool,
    "backend": str, "forward": bool, "external": str,
}  # fmt: skip
_UTF16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
_MADE = "node-file-made"
"""The key in the original state for the path of the node file that cnictl made behind a symbolic link."""
_REQUIRED = ("subnet", "network")
_ALWAYS_WRITTEN = ("subnet", "network", "name", "bridge", "nat", "backend")
_PLUGIN_KEYS = {"log_level": "log_level", "log_file": "log_file", "version": "plugin_version", "bin_dir": "bin_dirs",
                "conf_dir": "conf_dirs"}  # fmt: skip
"""The keys of the [plugin] table, and the spec's fields for them."""
_REACH_KEYS = tuple(field.name for field in fields(Reach))
_UNCLAIMED = ("unreachable", "default-route")
_PEER_KEYS = tuple(field.name for field in fields(Peer))

_HEADER = """\
# Desired state of this node. `cnictl apply` applies it; `cnictl status` shows differences.
# Written by cnictl, which keeps your comments; every key is explained in docs/node-file.md.

"""


def load(path: str = NODE_FILE) -> NodeSpec | None:
    """Return the spec in `path`; None if there is no such file.

    Raises UsageProblem if it is not a node file or does not pass `cnictl.node.spec.addressing.check`.
    """
    try:
        contents = _contents(path)
        text = contents.decode("utf-8-sig")
    except FileNotFoundError:
        return None
    except UnicodeDecodeError as error:
        words = "is UTF-16" if contents.startswith(_UTF16) else f"byte {error.start} is not UTF-8"
        raise UsageProblem(f"{path}: {words}", "save it as UTF-8") from None
    spec = parse(text, path)
    try:
        return learned_peers.with_learned(addressing.check(spec))
    except UsageProblem as problem:
        problem.message = f"{path}: {problem.message}"
        raise


def text_of_file(path: str = NODE_FILE) -> str:
    """Return the text of the node file; empty if there is none."""
    try:
        return _contents(path).decode("utf-8-sig", "surrogateescape")
    except FileNotFoundError:
        return ""


def _contents(path: str) -> bytes:
    if os.path.isdir(path):
        raise UsageProblem(f"{path} is a folder, not a file", f"move it away: mv {path} {path}.old")
    if os.path.exists(path) and not os.path.isfile(path):
        raise UsageProblem(f"{path} is a device, a pipe or a socket, not a file", f"remove it: rm {path}")
    return durable.contents(path)


def parse(text: str, path: str = NODE_FILE) -> NodeSpec:
    """Return the spec in a node file's text. Its addresses are not checked. Raises UsageProblem."""
    return _parsed(text, path)


@lru_cache(maxsize=8)
def _parsed(text: str, path: str) -> NodeSpec:
    try:
        document = toml_text.parse(text)
    except TOMLKitError as error:
        words, hint = toml_fault.explain(text, error)
        raise UsageProblem(f"{path}: {words}", hint) from None
    entries, plugin = document.pop("peers", []), document.pop("plugin", {})
    reach = _parse_reach(path, document.pop("reach", None))
    for key, value in list(document.items()):
        _check_key(path, key, (*_KINDS, "plugin", "reach", "peers"))
        if key in _KINDS:
            _check_kind(path, key, value, _KINDS[key])
        else:
            del document[key]
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
        _check_key(f"{path}: plugin", key, tuple(_PLUGIN_KEYS))
        if key in _PLUGIN_KEYS:
            several = _PLUGIN_KEYS[key] in FOLDERS and isinstance(value, list)
            for entry in value if several else [value]:
                _check_kind(f"{path}: plugin", key, entry, str)
    plugin_fields: dict[str, Any] = {
        field: texts_of(plugin[key]) if field in FOLDERS else plugin[key]
        for key, field in _PLUGIN_KEYS.items()
        if key in plugin
    }
    peers = tuple(_parse_peer(path, entry) for entry in entries)
    return NodeSpec(**document, **plugin_fields, peers=peers, reach=reach)


def _parse_reach(path: str, table: Any) -> Reach:
    if table is None:
        return Reach()
    if not isinstance(table, dict):
        raise UsageProblem(f"{path}: 'reach' has to be written as a [reach] table")
    where = f"{path}: reach"
    for key, value in table.items():
        _check_key(where, key, _REACH_KEYS)
        if key in _REACH_KEYS:
            _check_kind(where, key, value, str)
    for key, values in (("source", (FILE, KUBERNETES)), ("unclaimed", ("", *_UNCLAIMED))):
        if table.get(key, "") not in values:
            words = " or ".join(repr(value) for value in values if value)
            raise UsageProblem(f"{where}: {key} = {table.get(key, '')!r} has to be {words}")
    for key in ("file", "kubeconfig"):
        if table.get(key) and not table[key].startswith("/"):
            raise UsageProblem(f"{where}: {key} = {table[key]!r} is not an absolute path")
    return Reach(**{key: value for key, value in table.items() if key in _REACH_KEYS})


def _parse_peer(path: str, entry: dict[str, Any]) -> Peer:
    for key, value in entry.items():
        _check_key(f"{path}: peers", key, _PEER_KEYS)
        if key in _PEER_KEYS:
            _check_kind(f"{path}: peers", key, value, str)
    for key in ("pod_cidr", "via"):
        if key not in entry:
            raise UsageProblem(f"{path}: a [[peers]] table has no {key!r}")
    right = swapped.peer(entry["pod_cidr"], entry["via"])
    if right is not None:
        words = f"pod_cidr = {entry['pod_cidr']!r} and via = {entry['via']!r} are the wrong way round"
        raise UsageProblem(f"{path}: peers: {words}", f'pod_cidr = "{right.pod_cidr}", via = "{right.via}"')
    return Peer(**{key: value for key, value in entry.items() if key in _PEER_KEYS})


def _check_key(where: str, key: str, known: tuple[str, ...]) -> None:
    if key not in known and not _is_newer(where, key):
        near = difflib.get_close_matches(key, known, 1)
        suggestion = f"; did you mean {near[0]!r}?" if near else f"; the keys are {', '.join(known)}"
        raise UsageProblem(f"{where}: unknown key {key!r}{suggestion}")


def _is_newer(where: str, key: str) -> bool:
    """Return whether a newer cnictl wrote this key, as the original state shows; print a note once if it did."""
    try:
        if not {key, f"plugin_{key}"} & original_state.newer_keys():
            return False
    except (OSError, Problem):
        return False
    if (where, key) not in _reported:
        _reported.add((where, key))
        tell(f"cnictl: {where}: key {key!r} is from a newer cnictl; cnictl {cnictl.__version__} keeps and ignores it")
    return True


_reported: set[tuple[str, str]] = set()


def _texts(value: str | list[str], required: bool) -> tuple[str, ...]:
    return ("",) if required and not value else texts_of(value)  # a later check reports the empty value


def _check_kind(where: str, key: str, value: Any, kind: type) -> None:
    if key in FAMILIED and isinstance(value, list):
        for entry in value:
            _check_kind(where, f"an entry of {key}", entry, str)
        return
    if type(value) is not kind:
        words = {str: "text in quotes", int: "a whole number", bool: "true or false"}
        raise UsageProblem(f"{where}: {key} = {value!r} has to be {words[kind]}")


def merged(text: str, spec: NodeSpec) -> str:
    """Return a node file's text with only the edits that `spec` needs; comments, order and spelling stay."""
    if not text:
        return _edited(_HEADER, spec, _ALWAYS_WRITTEN)
    if _describes(text, spec):
        return text
    try:
        edited = _edited(text, spec)
        if _describes(edited, spec):
            return edited
    except (UsageProblem, TOMLKitError, LookupError):
        pass  # a file in this form can't be edited line by line
    return _edited(_HEADER, spec, _ALWAYS_WRITTEN)


def _describes(text: str, spec: NodeSpec) -> bool:
    """Return whether a node file's text means `spec`, however it is spelled."""
    current = parse(text)
    if current == spec:
        return True
    try:
        return addressing.check(current) == addressing.check(spec)
    except UsageProblem:
        return False


def _edited(text: str, spec: NodeSpec, always: tuple[str, ...] = ()) -> str:
    """Return the text with every difference from `spec` corrected."""
    current = parse(text) if text != _HEADER else NodeSpec((), ())
    defaults = NodeSpec(spec.subnets, spec.networks)
    blocks = toml_text.split(text)
    head = blocks[0]
    for key in _KINDS:
        value, is_there = _value(spec, key), key in head.values()
        missing = key in always or key in _REQUIRED or value != _value(defaults, key)
        if (not _same(key, _value(current, key), value)) if is_there else missing:
            head.put(key, value)
    _edit_plugin(blocks, spec)
    _edit_reach(blocks, spec)
    _edit_peers(blocks, current.peers, spec.peers)
    return toml_text.joined(blocks)


def _value(spec: NodeSpec, key: str) -> Any:
    """Return a key's value as the file has it."""
    return text_or_list(getattr(spec, FAMILIED[key])) if key in FAMILIED else getattr(spec, key)


def _same(key: str, current: Any, value: Any) -> bool:
    """Return whether two values of a key mean the same; a CIDR or an address has several spellings."""
    if key not in FAMILIED:
        return bool(current == value)
    return [_canonical(text) for text in texts_of(current)] == [_canonical(text) for text in texts_of(value)]


def _canonical(text: str) -> str:
    try:
        return str(parse_cidr(text)) if "/" in text else format_address(parse_address(text))
    except AddressError:
        return text


def _edit_plugin(blocks: list[Block], spec: NodeSpec) -> None:
    wanted = {
        key: text_or_list(getattr(spec, field)) if field in FOLDERS else getattr(spec, field)
        for key, field in _PLUGIN_KEYS.items()
    }
    _edit_table(blocks, "plugin", wanted)


def _edit_reach(blocks: list[Block], spec: NodeSpec) -> None:
    block = next((block for block in blocks if block.name == "reach"), None)
    if spec.reach.source or block is None:
        _edit_table(blocks, "reach", vars(spec.reach))
        return
    place = blocks.index(block)
    blocks[place - 1].text += block.remains()
    del blocks[place]


def _edit_table(blocks: list[Block], name: str, wanted: dict[str, Any]) -> None:
    """Set the keys of a table to these values. An empty value is written only to replace another one."""
    block = next((block for block in blocks if block.name == name), None)
    current = block.values() if block is not None else blocks[0].values().get(name, {})
    changed = {key: value for key, value in wanted.items() if value != current.get(key, "")}
    if not changed:
        return
    if block is not None:
        for key, value in changed.items():
            block.put(key, value)
    elif current:
        for key, value in changed.items():
            blocks[0].put(key, value, within=name)
    else:
        blocks.append(toml_text.new_table(blocks, f"[{name}]", changed))


def _edit_peers(blocks: list[Block], current: tuple[Peer, ...], peers: tuple[Peer, ...]) -> None:
    """Change, drop, add and order the [[peers]] tables, or the entries of one array. `current`: what they say."""
    order = [_canonical(peer.pod_cidr) for peer in peers]
    wanted = dict(zip(order, peers, strict=True))
    if "peers" in blocks[0].values():
        blocks[0].put_entries("peers", {cidr: _as_table(peer) for cidr, peer in wanted.items()}, _cidr_of)
        return
    if sum(block.name == "peers" for block in blocks) != len(current):
        raise LookupError("a line inside a string looks like a table header")
    kept: dict[str, Block] = {}
    tables = iter(current)
    before, blocks[:] = list(blocks), []
    for block in before:
        if block.name != "peers":
            blocks.append(block)
            continue
        old = next(tables)
        cidr = old.pod_cidr if old.pod_cidr in wanted else _canonical(old.pod_cidr)
        peer = wanted.get(cidr)
        if peer is None:
            blocks[-1].text += block.remains()
            continue
        blocks.append(block)
        kept[cidr] = block
        if _canonical(old.via) != _canonical(peer.via):
            block.put("via", peer.via)
        if old.dev != peer.dev:
            block.put("dev", peer.dev)
    for cidr in order:
        if cidr not in kept:
            kept[cidr] = toml_text.new_table(blocks, "[[peers]]", _as_table(wanted[cidr]))
            blocks.append(kept[cidr])
    toml_text.reorder(blocks, [kept[cidr] for cidr in order])


def _cidr_of(entry: dict[str, Any]) -> str:
    return _canonical(entry["pod_cidr"])


def _as_table(peer: Peer) -> dict[str, str]:
    table = {"pod_cidr": peer.pod_cidr, "via": peer.via}
    return {**table, "dev": peer.dev} if peer.dev else table


def write_text(text: str, path: str = NODE_FILE) -> None:
    """Replace the node file atomically; an empty text removes it. Raises OSError."""
    if not text:
        files.remove(path)
        folders.unmake(os.path.dirname(path))
        return
    folders.make(os.path.dirname(path))
    target = files.resolve(path)
    if target != path and not os.path.lexists(target):
        original_state.amend(_MADE, target)  # before the write, so that a killed process leaves nothing unrecorded
    files.write(path, text.encode("utf-8", "surrogateescape"), 0o644)


def is_operators(path: str = NODE_FILE) -> bool:
    """Return whether the node file is behind a symbolic link and was not made there by cnictl."""
    target = os.path.realpath(path)
    return target != path and os.path.exists(target) and original_state.recall(_MADE) != target
