"""Lay rows out in columns, for a screen of any width. Pure: texts in, lines out; it imports no drawing library.

Columns are separated by two spaces, without lines around them. If a row is wider than the screen, the last column is
wrapped at spaces. On a screen below 80 columns, or if that leaves the last column too narrow, the fields that do not
fit move under their row, each with its heading. Nothing is left out, and no word is split: an address, a CIDR or a time
is always on one line. Only a word that is longer than the screen, such as a name of 253 letters, is folded by the
terminal, on a line without other fields.
"""

import unicodedata
from collections.abc import Iterator, Sequence
from typing import NamedTuple

NARROW = 80
"""On a screen with fewer columns, no column is wrapped: fields move under their row."""
_GAP = 2
"""Spaces between columns."""
_INDENT = 4
"""Spaces before the fields under a row."""
_LEAST = 24
"""The least width of a wrapped column."""
_WIDEST = 80
"""The greatest width that a cell is padded to, so that one long name does not pad every row."""


class Segment(NamedTuple):
    """A part of a line."""

    text: str
    cell: str = ""
    """The whole cell that this piece is part of, which decides its colour; empty for spaces and headings."""
    heading: bool = False


Line = list[Segment]
Row = Sequence[str]


def width_of(text: str) -> int:
    """Return how many columns of a terminal a text takes."""
    if text.isascii():
        return len(text)
    return sum(map(_letter_width, text))


def table(columns: Row, rows: Sequence[Row], width: int | None = None, whole: int = 0, prose: int = 0) -> list[Line]:
    """Return the lines of a table. `width` is the screen's; None: unlimited, with one line for each row.

    The last `whole` columns hold commands: each gets its own line under the row and is never wrapped, so that it can be
    copied. The `prose` columns before them hold sentences, which are also under the row, but wrapped.
    """
    return _Table(columns, rows, width, whole, prose).lines()


def text_of(line: Line) -> str:
    """Return a line without its colours."""
    return "".join(segment.text for segment in line).rstrip()


def wrapped(text: str, width: int) -> list[str]:
    """Return a text in lines of at most `width` columns, broken at spaces; a longer word gets its own line."""
    lines, line, taken = list[str](), "", 0
    for word in text.split(" "):
        needed = width_of(word)
        if line and taken + 1 + needed > width:
            lines.append(line.rstrip())
            line, taken = word, needed
        else:
            line, taken = (f"{line} {word}", taken + 1 + needed) if line else (word, needed)
    return [*lines, line]


def bar(used: int, total: int, width: int = 20) -> str:
    """Return how much of something is used as a bar. It is empty only if nothing is used, and full only if all is."""
    filled = width if used >= total else min(width - 1, -(-used * width // total)) if used else 0
    return "█" * filled + "░" * (width - filled)


class _Table:
    def __init__(self, columns: Row, rows: Sequence[Row], width: int | None, whole: int, prose: int) -> None:
        self._headings, self._rows, self._width = columns, rows, width
        self._has_headings = any(columns)
        self._whole = len(columns) - whole
        """The first of the columns that hold commands."""
        self._count = self._whole - prose
        """The number of columns that may share a line."""
        self._widths = self._natural(_WIDEST)
        self._beside = self._count
        """The number of columns that do share a line."""
        self._room: int | None = None
        """The columns that the last one is wrapped to; None if it is not wrapped."""
        if width is not None:
            self._widths = self._natural(width)
            if self._taken(self._count) > width:
                self._widths = self._natural(min(_WIDEST, max(_LEAST, width // 2)))
                self._give_way(width)

    def lines(self) -> list[Line]:
        """Return the lines of the whole table."""
        heading = [self._heading()] if self._has_headings else []
        return heading + [line for row in self._rows for line in self._row(row)]

    def _natural(self, cap: int) -> list[int]:
        """Return each column's width. Cells wider than `cap` do not count, except in the last column."""
        widths = [[width_of(row[column]) for row in self._rows] for column in range(self._count)]
        caps = [cap] * (self._count - 1) + [max(widths[-1], default=0)]
        return [
            max([width_of(heading), *(width for width in column if width <= most)])
            for heading, column, most in zip(self._headings, widths, caps, strict=False)
        ]

    def _taken(self, count: int) -> int:
        return sum(self._widths[:count]) + _GAP * (count - 1)

    def _give_way(self, width: int) -> None:
        room = width - self._before_last()
        if room >= min(self._widths[-1], _LEAST) and (width >= NARROW or not self._has_headings):
            self._room = room
            return
        self._beside = max((count for count in range(1, self._count) if self._taken(count) <= width), default=1)

    def _before_last(self) -> int:
        return self._taken(self._count - 1) + _GAP if self._count > 1 else 0

    def _heading(self) -> Line:
        names = [Segment(name.upper(), heading=True) for name in self._headings[: self._beside]]
        return self._joined(names)

    def _joined(self, segments: Line) -> Line:
        line: Line = []
        for place, segment in enumerate(segments):
            line.append(segment)
            if place < len(segments) - 1:
                line.append(Segment(" " * (max(0, self._widths[place] - width_of(segment.text)) + _GAP)))
        return line

    def _row(self, row: Row) -> Iterator[Line]:
        beside = self._beside if self._width is None else self._fitting(row)
        cells = [Segment(cell, cell) for cell in row[:beside]]
        if beside == 1 and self._width is not None and width_of(row[0]) > self._width:
            yield from _folded("", row[0], self._width, 0)
        elif self._room is None or beside < self._count:
            yield self._joined(cells)
        else:
            first, *others = wrapped(row[beside - 1], self._room)
            yield self._joined([*cells[:-1], Segment(first, row[beside - 1])])
            blanks = Segment(" " * self._before_last())
            for text in others:
                yield [blanks, Segment(text, row[beside - 1])]
        yield from self._under(row, beside)

    def _fitting(self, row: Row) -> int:
        """Return how many cells of a row share a line. The first cell that is too long begins the fields under it."""
        for place in range(self._beside):
            last = place == self._count - 1
            if self._room is not None and last:
                needed, room = max(map(width_of, row[place].split(" "))), self._room
            else:
                needed, room = width_of(row[place]), self._widths[place]
            if needed > room:
                return max(place, 1)
        return self._beside

    def _under(self, row: Row, beside: int) -> Iterator[Line]:
        """Yield the fields under a row: as many on a line as fit; then those that get their own line."""
        width = self._width or 0
        line: Line = []
        for place in range(beside, self._count):
            if row[place] in ("", "-"):
                continue
            label = self._label(place)
            needed = width_of(label) + width_of(row[place])
            if line and sum(width_of(segment.text) for segment in line) + _GAP + needed > width:
                yield line
                line = []
            if _INDENT + needed > width:
                yield from _folded(label, row[place], width)
                continue
            line += [Segment(" " * (_GAP if line else _INDENT)), Segment(label), Segment(row[place], row[place])]
        if line:
            yield line
        for place in range(self._count, len(row)):
            if row[place] in ("", "-"):
                continue
            if place < self._whole and self._width is not None:
                yield from _folded(self._label(place), row[place], width)
            else:
                yield [Segment(" " * _INDENT + self._label(place)), Segment(row[place], row[place])]

    def _label(self, place: int) -> str:
        return f"{self._headings[place]}: " if self._headings[place] else ""


def _folded(label: str, cell: str, width: int, first: int = _INDENT) -> Iterator[Line]:
    """Yield a field that is longer than a line, wrapped at spaces; `first`: the spaces before its first line."""
    for number, text in enumerate(wrapped(f"{label}{cell}", width - first - _GAP)):
        indent = first + (_GAP if number else 0)
        yield [Segment(" " * max(0, min(indent, width - width_of(text)))), Segment(text, cell)]


def _letter_width(letter: str) -> int:
    if unicodedata.category(letter) in ("Mn", "Me", "Cf"):
        return 0
    return 2 if unicodedata.east_asian_width(letter) in ("W", "F") else 1
