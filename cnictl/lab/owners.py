"""Which users of the host a lab's users are, where root started it: a range that no one else on the host has.

Users with a common number are one user to the kernel: a lab that stood for `nobody` could be entered and ended by every
daemon that runs as `nobody`. So each lab gets numbers of its own, from a part of the number space that neither
distributions nor systemd hand out, drawn at random, and checked against what the host has.
"""

import errno
import os
import secrets
from collections.abc import Iterable
from dataclasses import dataclass

COUNT = 1 << 16
"""Numbers set apart for a lab, as many as a container has."""
USERS = 65534
"""Of these the ones that are mapped: not 65534, as which the host's own files show where it is no one's number.
A file of that owner is then out of reach for all in the lab (`node.trust`)."""
FIRST, LAST = 0x70000000, 0x7FFE0000
"""systemd's UIDS-GIDS.md: containers are given what is below, "foreign" images what is above; between is unused."""


@dataclass(frozen=True)
class Owners:
    """The users `first` to `first + count - 1` of the host, and the groups of the same numbers."""

    first: int
    count: int


def own_range(host: str) -> Owners | None:
    """Choose the users for a new lab; `host` is where the host's root is seen.

    Where this process's own user namespace has no such numbers (root in a container) it is its last one alone; None if
    there is no other than this process's.
    """
    mapped = _mapped(f"{host}/proc/self/uid_map")
    groups = _mapped(f"{host}/proc/self/gid_map")
    if _covered(mapped, FIRST, LAST - FIRST) and _covered(groups, FIRST, LAST - FIRST):
        taken = [*given_away(_lines(f"{host}/etc/subuid")), *given_away(_lines(f"{host}/etc/subgid"))]
        return draw(taken, _in_use(host))
    last = min(max((first + count - 1 for first, count in each), default=0) for each in (mapped, groups))
    return Owners(last, 1) if last > 0 else None


def draw(taken: Iterable[tuple[int, int]], in_use: frozenset[int]) -> Owners:
    """Draw a range that overlaps none of `taken` (first number, count) and holds none of `in_use`.

    Raises OSError if there is none left.
    """
    ranges = list(taken)
    used = {user - user % COUNT for user in in_use}
    slots = [
        first
        for first in range(FIRST, LAST - COUNT + 1, COUNT)
        if first not in used and not any(start < first + COUNT and first < start + count for start, count in ranges)
    ]
    if not slots:
        raise OSError(errno.EUSERS, f"no free range of {COUNT} users for the lab: /etc/subuid gives all away")
    return Owners(secrets.choice(slots), USERS)


def given_away(lines: Iterable[str]) -> list[tuple[int, int]]:
    """The ranges that subuid(5) or subgid(5) gives to users; lines of another form give none."""
    found = []
    for line in lines:
        parts = line.split(":")
        if len(parts) == 3 and parts[1].isdigit() and parts[2].strip().isdigit():
            found.append((int(parts[1]), int(parts[2])))
    return found


def _mapped(path: str) -> list[tuple[int, int]]:
    """What user_namespaces(7) calls the map of this process: first number inside, and count."""
    return [(int(line.split()[0]), int(line.split()[2])) for line in _lines(path)]


def _covered(ranges: Iterable[tuple[int, int]], first: int, count: int) -> bool:
    return any(start <= first and first + count <= start + size for start, size in ranges)


def _in_use(host: str) -> frozenset[int]:
    """The users that processes run as right now."""
    found = set()
    for name in os.listdir(f"{host}/proc"):
        if name.isdigit():
            try:
                found.add(os.stat(f"{host}/proc/{name}").st_uid)
            except OSError:
                continue  # it has ended
    return frozenset(found)


def _lines(path: str) -> list[str]:
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read().splitlines()
    except OSError:
        return []
