"""Choose the host's users that a lab's users map to when root starts the lab: a range that nobody else uses.

To the kernel, users with the same number are one user. If a lab mapped to `nobody`, every daemon that runs as `nobody`
could enter and end it. So each lab gets its own numbers. They are drawn at random from a range that neither
distributions nor systemd assign, and checked against the numbers in use on the host.
"""

import errno
import os
import secrets
from collections.abc import Iterable
from dataclasses import dataclass

COUNT = 1 << 16
"""Numbers reserved for a lab, as many as for a container."""
USERS = 65534
"""How many of them are mapped: the first 65534. User 65534 is not mapped, because the lab shows the host's own files as
that user's. So no user in the lab owns them (`node.plugin.ownership`)."""
FIRST, LAST = 0x70000000, 0x7FFE0000
"""Unused according to systemd's UIDS-GIDS.md: containers get numbers below, "foreign" images numbers above."""


@dataclass(frozen=True)
class Owners:
    """The users `first` to `first + count - 1` of the host, and the groups with the same numbers."""

    first: int
    count: int


def own_range(host: str) -> Owners | None:
    """Choose the users for a new lab. `host` is the path of the host's root.

    If this process's user namespace lacks the range (root in a container), return only its last user; None if root is
    its only user.
    """
    mapped = _mapped(f"{host}/proc/self/uid_map")
    groups = _mapped(f"{host}/proc/self/gid_map")
    if _covered(mapped, FIRST, LAST - FIRST) and _covered(groups, FIRST, LAST - FIRST):
        taken = [*given_away(_lines(f"{host}/etc/subuid")), *given_away(_lines(f"{host}/etc/subgid"))]
        return draw(taken, _in_use(host))
    last = min(max((first + count - 1 for first, count in each), default=0) for each in (mapped, groups))
    return Owners(last, 1) if last > 0 else None


def draw(taken: Iterable[tuple[int, int]], in_use: frozenset[int]) -> Owners:
    """Draw a range that overlaps none of `taken` (first number, count) and contains none of `in_use`.

    Raises OSError if no range is left.
    """
    ranges = list(taken)
    used = {user - user % COUNT for user in in_use}
    slots = [
        first
        for first in range(FIRST, LAST - COUNT + 1, COUNT)
        if first not in used and not any(start < first + COUNT and first < start + count for start, count in ranges)
    ]
    if not slots:
        raise OSError(errno.EUSERS, f"no free range of {COUNT} users for the lab: /etc/subuid assigns all of them")
    return Owners(secrets.choice(slots), USERS)


def given_away(lines: Iterable[str]) -> list[tuple[int, int]]:
    """Return the ranges that subuid(5) or subgid(5) assigns to users; malformed lines are skipped."""
    ranges = []
    for line in lines:
        parts = line.split(":")
        if len(parts) == 3 and parts[1].isdigit() and parts[2].strip().isdigit():
            ranges.append((int(parts[1]), int(parts[2])))
    return ranges


def _mapped(path: str) -> list[tuple[int, int]]:
    """Return this process's uid or gid map (user_namespaces(7)): first number inside, and count."""
    return [(int(line.split()[0]), int(line.split()[2])) for line in _lines(path)]


def _covered(ranges: Iterable[tuple[int, int]], first: int, count: int) -> bool:
    return any(start <= first and first + count <= start + size for start, size in ranges)


def _in_use(host: str) -> frozenset[int]:
    """Return the users that processes run as now."""
    users = set()
    for name in os.listdir(f"{host}/proc"):
        if name.isdigit():
            try:
                users.add(os.stat(f"{host}/proc/{name}").st_uid)
            except OSError:
                continue  # the process has ended
    return frozenset(users)


def _lines(path: str) -> list[str]:
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read().splitlines()
    except OSError:
        return []
