"""Who could change a file that root runs: itself, or any folder on the way to it.

The plugin runs as root at every pod start, so its interpreter and code must be root's alone all the way down.
"""

import errno
import os
import stat
import struct
from collections.abc import Callable

OVERFLOW_ID = 65534
"""How a user namespace shows owners that it has no number for (user_namespaces(7))."""

_ACL = "system.posix_acl_access"
_HEADER, _ENTRY = 4, struct.Struct("<HHI")
_USER, _GROUP_OBJ, _GROUP, _MASK = 0x02, 0x04, 0x08, 0x10
_WRITE = 2

_MOST_LINKS = 40  # as the kernel's own bound on symbolic links in one path (path_resolution(7))


def fault(path: str) -> str:
    """Why someone other than root could change what `path` leads to, naming the culprit; empty if nobody can."""
    try:
        steps = _steps(os.path.abspath(path))
    except OSError as error:
        return f"{error.filename or path}: {error.strerror}"
    owners = roots()
    for step in steps:
        why = _step_fault(step, owners)
        if why:
            return why
    return ""


def culprits(path: str) -> list[str]:
    """Return each file, link and folder on the way to `path` that others could change; none where it can't be told."""
    try:
        steps = _steps(os.path.abspath(path))
    except OSError:
        return []
    owners = roots()
    return [step for step in dict.fromkeys(steps) if _step_fault(step, owners)]


def has_acl(path: str) -> bool:
    """Return whether a file or folder has a POSIX ACL beside its mode."""
    return not stat.S_ISLNK(os.lstat(path).st_mode) and bool(_acl(path))


def roots() -> set[int]:
    """The user ids that stand for root, or for users whom nobody here can be.

    In a user namespace the host's root shows as the overflow id, as does every other host user. Where that id is not
    mapped, no process of the namespace can be such a user, so such a file is out of reach for all in it.
    """
    return {0} if _overflow_mapped() else {0, OVERFLOW_ID}


def status_of(path: str) -> os.stat_result | None:
    """Return the status of a file, folder or link; None if it is missing."""
    try:
        return os.lstat(path)
    except (FileNotFoundError, NotADirectoryError):
        return None


def follow(path: str, visit: Callable[[str, os.stat_result | None], None]) -> str:
    """Return where an absolute path leads through symbolic links; what it leads to may be missing.

    `visit` gets each folder and link on the way, and the file, with its status (None: missing). Raises OSError ELOOP
    after 40 links, with the last one as `filename2`.
    """
    waiting, here, links = _parts(path), "/", 0
    while waiting:
        part = waiting.pop(0)
        if part == "..":
            here = os.path.dirname(here)
            continue
        step = os.path.join(here, part)
        found = status_of(step)
        is_link = found is not None and stat.S_ISLNK(found.st_mode)
        links += is_link
        if links > _MOST_LINKS:
            raise OSError(errno.ELOOP, "too many symbolic links", path, None, step)
        visit(step, found)
        if is_link:
            target = os.readlink(step)
            here = "/" if target.startswith("/") else here
            waiting = _parts(target) + waiting
        else:
            here = step
    return here


def _parts(path: str) -> list[str]:
    return [part for part in path.split("/") if part not in ("", ".")]


def _step_fault(path: str, owners: set[int]) -> str:
    found = os.lstat(path)
    if found.st_uid not in owners:
        return f"{path} belongs to user {found.st_uid}, not to root"
    if stat.S_ISLNK(found.st_mode):
        return ""  # a link has no mode; whoever may replace it is judged by its folder
    if found.st_mode & stat.S_IWOTH:
        return f"{path} is writable by everyone (mode {stat.S_IMODE(found.st_mode):o})"
    acl = _acl(path)
    if acl:  # the mode's group bits are the ACL's mask then, not the group's own (acl(5))
        writers = acl_writers(acl, found.st_gid)
        return f"{path} is writable by {writers[0]} through its ACL (getfacl {path})" if writers else ""
    if found.st_mode & stat.S_IWGRP and found.st_gid != 0:
        return f"{path} is writable by group {found.st_gid} (mode {stat.S_IMODE(found.st_mode):o})"
    return ""


def _acl(path: str) -> bytes:
    """The POSIX ACL of a file or folder as the kernel gives it; empty without one, or where there are none."""
    try:
        return os.getxattr(path, _ACL)
    except OSError as error:
        if error.errno in (errno.ENODATA, errno.EOPNOTSUPP):
            return b""
        raise


def acl_writers(acl: bytes, owning_group: int) -> list[str]:
    """Users and groups other than root's that an ACL lets write, in words: `user 1000`, `group 4`.

    The layout is linux/posix_acl_xattr.h's: a version, then tag, permissions and id of each entry, little-endian.
    """
    entries = [_ENTRY.unpack_from(acl, at) for at in range(_HEADER, len(acl) - _ENTRY.size + 1, _ENTRY.size)]
    mask = next((rights for tag, rights, _ in entries if tag == _MASK), _WRITE)
    writers = []
    for tag, rights, number in entries:
        kind = {_USER: "user", _GROUP: "group", _GROUP_OBJ: "group"}.get(tag, "")
        holder = owning_group if tag == _GROUP_OBJ else number
        if kind and holder != 0 and rights & mask & _WRITE:
            writers.append(f"{kind} {holder}")
    return writers


def _steps(path: str) -> list[str]:
    """Return every folder and link that resolving `path` passes, and the file. Raises OSError if one is missing."""
    steps = ["/"]

    def add(step: str, found: os.stat_result | None) -> None:
        steps.append(step)
        if found is None:
            os.lstat(step)  # raises

    follow(path, add)
    return steps


def _overflow_mapped() -> bool:
    """Whether this user namespace has a user of its own with the overflow id."""
    with open("/proc/self/uid_map", encoding="ascii") as file:
        for line in file:
            inside, _, count = (int(number) for number in line.split())
            if inside <= OVERFLOW_ID < inside + count:
                return True
    return False
