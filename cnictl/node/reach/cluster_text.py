"""Find and edit the nodes of a cluster file as text, so that comments, order and alignment stay.

A node is one entry of an array, `nodes = [{ name = … }, …]`, or a `[[nodes]]` table. All functions are pure.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import tomlkit
from tomlkit.exceptions import TOMLKitError

from cnictl.core.errors import UsageProblem
from cnictl.node.spec import toml_text
from cnictl.node.spec.toml_text import Block

NODES = "nodes"

_TOKEN = re.compile(
    r'"""(?:[^\\]|\\.)*?"""|' + r"'''.*?'''" + r'|"(?:[^"\\\n]|\\.)*"|' + r"'[^'\n]*'|#[^\n]*|[\[\]{}]", re.DOTALL
)
_ASSIGNED = re.compile(r"""[ \t]*["']?nodes["']?[ \t]*=[ \t]*\Z""")


@dataclass(frozen=True)
class _Entry:
    """The position of an array's entry in the text: of its `{`, and after its `}`."""

    start: int
    end: int


def lines(text: str) -> list[int]:
    """Return the line number of each node in a valid TOML text, in order."""
    entries = _entries(text)
    if entries:
        return [text.count("\n", 0, entry.start) + 1 for entry in entries]
    numbers, number = [], 1
    for block in toml_text.split(text):
        if block.name == NODES:
            numbers.append(number + _comments_above(block))
        number += block.text.count("\n")
    return numbers


def line_of_key(text: str, key: str) -> int:
    """Return the line number of a top-level key; 1 if it can't be found."""
    assigned = re.compile(rf"""[ \t]*["']?{re.escape(key)}["']?[ \t]*=""")
    return next((number for number, line in enumerate(text.split("\n"), 1) if assigned.match(line)), 1)


def with_pod_cidrs(text: str, pod_cidrs: Mapping[int, str | list[str]]) -> str:
    """Return the text with these pod CIDRs for the nodes at these positions. Raises UsageProblem."""
    entries = _entries(text)

    def change(nodes: list[dict[str, Any]]) -> None:
        for position, value in pod_cidrs.items():
            nodes[position]["pod_cidr"] = value

    if entries:
        pieces, at = [], 0
        for position in sorted(pod_cidrs):
            entry = entries[position]
            pieces += [text[at : entry.start], _with_pod_cidr(text[entry.start : entry.end], pod_cidrs[position])]
            at = entry.end
        edited = "".join([*pieces, text[at:]])
    else:
        blocks = toml_text.split(text)
        tables = [block for block in blocks if block.name == NODES]
        for position, value in pod_cidrs.items():
            tables[position].put("pod_cidr", value)
        edited = toml_text.joined(blocks)
    return _checked(text, edited, change)


def without(text: str, position: int) -> str:
    """Return the text without the node at a position. Raises UsageProblem."""
    entries = _entries(text)
    if entries:
        edited = _removed(text, entries[position])
    else:
        blocks = toml_text.split(text)
        block = [block for block in blocks if block.name == NODES][position]
        place = next(number for number, other in enumerate(blocks) if other is block)
        blocks[place - 1].text += block.remains()
        del blocks[place]
        edited = toml_text.joined(blocks)
    return _checked(text, edited, lambda nodes: nodes.__delitem__(position))


def _checked(text: str, edited: str, change: Callable[[list[dict[str, Any]]], None]) -> str:
    """Return the edited text if it means the original data after `change`. Raises UsageProblem."""
    wanted = toml_text.parse(text)
    change(wanted[NODES])
    if not wanted[NODES]:
        del wanted[NODES]
    try:
        document = toml_text.parse(edited)
    except TOMLKitError:
        document = {}
    if document.get(NODES) == []:
        del document[NODES]
    if document != wanted:
        raise UsageProblem("the nodes are written in a form that can't be edited", "write each node on its own line")
    return edited


def _comments_above(block: Block) -> int:
    """Return the number of lines above the header of a table's block."""
    return next(number for number, line in enumerate(block.text.split("\n")) if line.lstrip().startswith("["))


def _entries(text: str) -> list[_Entry]:
    """Return the entries of the array `nodes`; none if the nodes are tables."""
    depth, begins, inside, entries = 0, 0, False, []
    for token in _TOKEN.finditer(text):
        sign = token[0]
        if sign in "[{":
            line = text[text.rfind("\n", 0, token.start()) + 1 : token.start()]
            if depth == 0 and not line.strip():
                break  # the header of a table: the array can only precede it
            inside = inside if depth else bool(_ASSIGNED.match(line))
            depth += 1
            if sign == "{" and depth == 2:
                begins = token.start()
        elif sign in "]}":
            if sign == "}" and depth == 2 and inside:
                entries.append(_Entry(begins, token.end()))
            depth -= 1
    return entries


def _with_pod_cidr(entry: str, value: str | list[str]) -> str:
    """Return an inline table with this pod CIDR, in place of the old one or as the last key."""
    document: Any = tomlkit.parse(f"entry = {entry}")
    if "pod_cidr" in document["entry"]:
        document["entry"]["pod_cidr"] = value
        return tomlkit.dumps(document).removeprefix("entry = ")
    inside = entry[1:-1]
    kept = inside.rstrip()
    return f"{{{kept}, {tomlkit.dumps({'pod_cidr': value}).strip()}{inside[len(kept) :]}}}"


def _removed(text: str, entry: _Entry) -> str:
    """Remove an entry with its comma and, if nothing else is on its line, the whole line with its comment."""
    comma = re.compile(r"\s*,").match(text, entry.end)
    start, end = entry.start, comma.end() if comma else entry.end
    line_start = text.rfind("\n", 0, start) + 1
    rest = re.compile(r"[ \t]*(#[^\n]*)?(\n|\Z)").match(text, end)
    if not text[line_start:start].strip() and rest:
        return text[:line_start] + text[rest.end() :]
    blanks = re.compile(r"[ \t]*").match(text, end)
    return text[:start] + text[blanks.end() if blanks else end :]
