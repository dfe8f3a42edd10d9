"""Edit a TOML file as text: set keys, add or remove tables, and keep every other byte.

tomlkit replaces a value in its place. But it moves comments and blank lines when a key or a table is added or removed,
so this module edits lines in these cases. A comment belongs to the table whose header is right below it.
"""

import re
import tomllib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import tomlkit

_HEADER = re.compile(r"\s*\[\[?\s*([A-Za-z0-9_.\"'-]+)\s*\]\]?\s*(#.*)?$")


@dataclass
class Block:
    """A part of the file: the text before the first table (empty name), or a table with the comment above it."""

    name: str
    text: str

    def values(self) -> dict[str, Any]:
        """Return the block's values; of a table, its own keys."""
        said: Any = parse(self.text)
        inner = said.get(self.name, {}) if self.name else said
        return dict(inner[0] if isinstance(inner, list) else inner)

    def put(self, key: str, value: Any, within: str = "") -> None:
        """Set a key in place; a new key comes last. `within` names a table that is written as a dotted key."""
        document: Any = tomlkit.parse(self.text)
        name = within or self.name
        table = document[name] if name else document
        if isinstance(table, list):
            table = table[0]
        if key in table:
            table[key] = value
            self.text = tomlkit.dumps(document)
        else:
            self._add(f"{within}.{tomlkit.dumps({key: value})}".lstrip(".").strip())

    def put_entries(
        self, key: str, wanted: dict[str, dict[str, Any]], name_of: Callable[[dict[str, Any]], str]
    ) -> None:
        """Set the entries of an inline array of tables, in this order; present entries keep their spelling."""
        document: Any = tomlkit.parse(self.text)
        array = document[key]
        names = [name_of(entry) for entry in array.unwrap()]
        for place in range(len(names) - 1, -1, -1):
            entry = wanted.get(names[place])
            if entry is None:
                del array[place]
            elif array[place].unwrap() != entry:
                array[place] = _inline(entry)
        for name in wanted:
            if name not in names:
                array.append(_inline(wanted[name]))
        if [name_of(entry) for entry in array.unwrap()] != list(wanted):
            array.clear()
            array.extend(_inline(entry) for entry in wanted.values())
        self.text = tomlkit.dumps(document)

    def _add(self, line: str) -> None:
        lines, newline = self.text.splitlines(keepends=True), _newline(self.text)
        last = max((number for number, old in enumerate(lines) if _is_content(old)), default=len(lines) - 1)
        if lines and not lines[last].endswith("\n"):
            lines[last] += newline
        lines.insert(last + 1, line + newline)
        self.text = "".join(lines)

    def remains(self) -> str:
        """Return the comments after the table's last key and a blank line; they stay if the table is removed."""
        lines = self.text.splitlines(keepends=True)
        after = max(number for number, line in enumerate(lines) if _is_content(line)) + 1
        while after < len(lines) and lines[after].strip():
            after += 1
        rest = "".join(lines[after:])
        return rest if rest.strip() else ""


def parse(text: str) -> dict[str, Any]:
    """Return a TOML text's values. Raises TOMLKitError, which has the line.

    The standard library parses it: tomlkit, which is used to keep comments, takes twenty times as long.
    """
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError:
        return dict(tomlkit.parse(text).unwrap())


def split(text: str) -> list[Block]:
    """Return the file's blocks in order, first the one before all tables."""
    lines = text.splitlines(keepends=True)
    starts = [(0, "")]
    for number, line in enumerate(lines):
        header = _HEADER.match(line)
        if header is None:
            continue
        start = number
        while start > starts[-1][0] and lines[start - 1].lstrip().startswith("#"):
            start -= 1
        starts.append((start, header[1].strip("\"'")))
    ends = [start for start, _ in starts[1:]] + [len(lines)]
    return [Block(name, "".join(lines[start:end])) for (start, name), end in zip(starts, ends, strict=True)]


def joined(blocks: list[Block]) -> str:
    """Return the text of the blocks."""
    return "".join(block.text for block in blocks)


def reorder(blocks: list[Block], wanted: list[Block]) -> None:
    """Put these blocks of the file into this order, within the places that they have now."""
    known = {id(block) for block in wanted}
    places = [place for place, block in enumerate(blocks) if id(block) in known]
    if all(blocks[place] is block for place, block in zip(places, wanted, strict=True)):
        return
    for place, block in zip(places, wanted, strict=True):
        newline = _newline(block.text)
        block.text = block.text.strip("\r\n") + newline
        blocks[place] = block
        if place and not blocks[place - 1].text.endswith(2 * newline):
            block.text = newline + block.text


def new_table(blocks: list[Block], header: str, values: dict[str, Any]) -> Block:
    """Return a table to be added after `blocks`, with a blank line before it and their line ends."""
    last = next((block.text for block in reversed(blocks) if block.text), "")
    newline = _newline(last)
    ahead = "" if not last else (newline if last.endswith("\n") else 2 * newline)
    lines = [header, *tomlkit.dumps(values).splitlines()]
    return Block(header.strip("[]"), ahead + "".join(line + newline for line in lines))


def _inline(entry: dict[str, Any]) -> Any:
    table = tomlkit.inline_table()
    table.update(entry)
    return table


def _is_content(line: str) -> bool:
    return bool(line.strip()) and not line.lstrip().startswith("#")


def _newline(text: str) -> str:
    return "\r\n" if "\r\n" in text else "\n"
