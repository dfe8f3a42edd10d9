"""Who could change a file that root runs: itself, or any folder on the way to it.

The plugin runs as root at every pod start, so its interpreter and code must be root's alone all the way down.
"""

import os
import stat

OVERFLOW_ID = 65534
"""How a user namespace shows owners that it has no number for (user_namespaces(7))."""

_MOST_LINKS = 40  # as the kernel's own bound on symbolic links in one path (path_resolution(7))


def fault(path: str) -> str:
    """Why someone other than root could change what `path` leads to, naming the culprit; empty if nobody can."""
    try:
        steps = _steps(os.path.abspath(path))
    except OSError as error:
        return f"{error.filename or path}: {error.strerror}"
    mapped = _overflow_mapped()
    for step in steps:
        why = _step_fault(step, mapped)
        if why:
            return why
    return ""


def _step_fault(path: str, overflow_mapped: bool) -> str:
    found = os.lstat(path)
    # In a user namespace the host's root shows as the overflow id, as does every other host user. Where that id is
    # not mapped, no process of the namespace can be such a user, so such a file is out of reach for all in it.
    roots = {0} if overflow_mapped else {0, OVERFLOW_ID}
    if found.st_uid not in roots:
        return f"{path} belongs to user {found.st_uid}, not to root"
    if stat.S_ISLNK(found.st_mode):
        return ""  # a link has no mode; whoever may replace it is judged by its folder
    if found.st_mode & stat.S_IWOTH:
        return f"{path} is writable by everyone (mode {stat.S_IMODE(found.st_mode):o})"
    if found.st_mode & stat.S_IWGRP and found.st_gid != 0:
        return f"{path} is writable by group {found.st_gid} (mode {stat.S_IMODE(found.st_mode):o})"
    return ""


def _steps(path: str) -> list[str]:
    """Every folder and link that resolving `path` passes, and the file itself. Raises OSError if one is missing."""
    steps = ["/"]
    waiting = [part for part in path.split("/") if part]
    here = "/"
    links = 0
    while waiting:
        part = waiting.pop(0)
        if part == "..":
            here = os.path.dirname(here)
            continue
        step = os.path.join(here, part)
        steps.append(step)
        if not stat.S_ISLNK(os.lstat(step).st_mode):
            here = step
            continue
        links += 1
        if links > _MOST_LINKS:
            raise OSError(0, "too many symbolic links", path)
        target = os.readlink(step)
        waiting = [part for part in target.split("/") if part and part != "."] + waiting
        here = "/" if target.startswith("/") else here
    return steps


def _overflow_mapped() -> bool:
    """Whether this user namespace has a user of its own with the overflow id."""
    with open("/proc/self/uid_map", encoding="ascii") as file:
        for line in file:
            inside, _, count = (int(number) for number in line.split())
            if inside <= OVERFLOW_ID < inside + count:
                return True
    return False
