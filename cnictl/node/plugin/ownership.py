"""Find out who could change a file that root runs, directly or through a folder in its path.

The plugin runs as root at every pod start. So only root may be able to change its interpreter, its code and every
folder above them.
"""

import errno
import os
import stat
import struct
from collections.abc import Iterator

OVERFLOW_ID = 65534
"""The id that a user namespace shows for owners that it does not map (user_namespaces(7))."""

_ACL = "system.posix_acl_access"
_HEADER, _ENTRY = 4, struct.Struct("<HHI")
_USER, _GROUP_OBJ, _GROUP, _MASK = 0x02, 0x04, 0x08, 0x10
_WRITE = 2

_MOST_LINKS = 40  # as the kernel's own bound on symbolic links in one path (path_resolution(7))


def fault(path: str) -> str:
    """Return why a user other than root could change what `path` leads to, with the culprit; empty if nobody can."""
    try:
        return next((fault for fault in _faults(path).values() if fault), "")
    except OSError as error:
        return f"{error.filename or path}: {error.strerror}"


def culprits(path: str) -> list[str]:
    """Return each link and folder in `path`, and the file itself, that others could change; none if one is missing."""
    try:
        return [step for step, fault in _faults(path).items() if fault]
    except OSError:
        return []


def _faults(path: str) -> dict[str, str]:
    """Return the fault of each step of `path` that others could change. Raises OSError if one is missing."""
    owners = roots()
    return {step: _step_fault(step, status or os.lstat(step), owners) for step, status in walk(os.path.abspath(path))}


def has_acl(path: str) -> bool:
    """Return whether a file or folder has a POSIX ACL besides its mode."""
    return not stat.S_ISLNK(os.lstat(path).st_mode) and bool(_acl(path))


def roots() -> set[int]:
    """Return the user ids of root, and of users that no process in this user namespace can be.

    In a user namespace, the host's root and all other unmapped users show as the overflow id. If that id itself is not
    mapped, no process of the namespace can be such a user, and so none can change such a user's file.
    """
    return {0} if _overflow_mapped() else {0, OVERFLOW_ID}


def _step_fault(path: str, status: os.stat_result, owners: set[int]) -> str:
    if status.st_uid not in owners:
        return f"{path} belongs to user {status.st_uid}, not to root"
    if stat.S_ISLNK(status.st_mode):
        return ""  # a link has no mode; its folder decides who can replace it
    if status.st_mode & stat.S_IWOTH:
        return f"{path} is writable by everyone (mode {stat.S_IMODE(status.st_mode):o})"
    acl = _acl(path)
    if acl:  # then the mode's group bits are the ACL's mask, not the group's (acl(5))
        writers = acl_writers(acl, status.st_gid)
        return f"{path} is writable by {writers[0]} through its ACL (getfacl {path})" if writers else ""
    if status.st_mode & stat.S_IWGRP and status.st_gid != 0:
        return f"{path} is writable by group {status.st_gid} (mode {stat.S_IMODE(status.st_mode):o})"
    return ""


def _acl(path: str) -> bytes:
    """Return the POSIX ACL of a file or folder as the kernel gives it; empty without one."""
    try:
        return os.getxattr(path, _ACL)
    except OSError as error:
        if error.errno in (errno.ENODATA, errno.EOPNOTSUPP):
            return b""
        raise


def acl_writers(acl: bytes, owning_group: int) -> list[str]:
    """Return the users and groups other than root's that an ACL lets write: `user 1000`, `group 4`.

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


def walk(path: str) -> Iterator[tuple[str, os.stat_result | None]]:
    """Yield each folder and link that resolving `path` passes, and last the result, each with its status.

    The status is None if a step is missing. Raises OSError, with the link as its file, if the links form a circle.
    """
    waiting, here, links = [part for part in path.split("/") if part], "/", 0
    yield here, os.lstat(here)
    while waiting:
        part = waiting.pop(0)
        step = os.path.dirname(here) if part == ".." else os.path.join(here, part)
        status = status_of(step)
        yield step, status
        if status is None or not stat.S_ISLNK(status.st_mode):
            here = step
            continue
        links += 1
        if links > _MOST_LINKS:
            raise OSError(0, "too many symbolic links", step)
        target = os.readlink(step)
        waiting = [part for part in target.split("/") if part not in ("", ".")] + waiting
        here = "/" if target.startswith("/") else here


def status_of(path: str) -> os.stat_result | None:
    """Return the status of a file, link or folder; None if it is missing."""
    try:
        return os.lstat(path)
    except (FileNotFoundError, NotADirectoryError):
        return None


def _overflow_mapped() -> bool:
    """Return whether this user namespace maps the overflow id."""
    with open("/proc/self/uid_map", encoding="ascii") as file:
        for line in file:
            inside, _, count = (int(number) for number in line.split())
            if inside <= OVERFLOW_ID < inside + count:
                return True
    return False
