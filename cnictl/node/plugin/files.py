"""Write files that may be an operator's own: links are followed, and mode, owner and ACL stay as they are.

If an operator moved one of our files elsewhere and left a link to it, the file is written there. The link itself is
never replaced or removed. Each link in the path must belong to root, because another user's link could lead root
anywhere.
"""

import contextlib
import errno
import os
import stat
from collections.abc import Iterator

from cnictl.core import durable
from cnictl.core.errors import Problem
from cnictl.node.plugin import ownership

_KINDS = {
    stat.S_IFDIR: "a folder", stat.S_IFCHR: "a device", stat.S_IFBLK: "a device", stat.S_IFIFO: "a pipe",
    stat.S_IFSOCK: "a socket",
}  # fmt: skip


def read(path: str) -> str:
    """Return the text of a file, in which `write` keeps bytes that are not UTF-8. Raises OSError."""
    return durable.contents(path).decode("utf-8", "surrogateescape")


def write(path: str, content: bytes | str, mode: int, keep: bool = True) -> None:
    """Replace a file's content in one step. A new file gets `mode`; with `keep`, an existing one keeps its mode.

    A file with hard links, or one that is a mount point, is rewritten in place, because a new file would not be the
    linked or mounted one. Raises Problem, with the file unchanged.
    """
    data = content.encode("utf-8", "surrogateescape") if isinstance(content, str) else content
    target = resolve(path)
    with _folder_of(path, target) as folder:
        place = f"{folder}/{os.path.basename(target)}"
        status = ownership.status_of(place)
        if status is not None and not stat.S_ISREG(status.st_mode):
            kind = _KINDS.get(stat.S_IFMT(status.st_mode), "no file")
            raise Problem(f"{_named(path, target)} is {kind}, not a file", f"move it away: {target}")
        try:
            if status is not None and status.st_nlink > 1:
                _rewrite(place, data)
                return
            like = status if keep else None
            try:  # nobody else can read the new file until it has the old one's owner, mode and ACL
                first = stat.S_IMODE(like.st_mode) & 0o700 if like else mode
                durable.replace(place, data, first, (lambda new: _copy_attributes(new, place)) if like else None)
            except OSError as error:
                if error.errno != errno.EBUSY:
                    raise
                _rewrite(place, data)  # a bind mount
        except OSError as error:
            raise _refusal(error, path, target) from None


def remove(path: str) -> None:
    """Remove one of our files. If it is a link, remove the file that it leads to, and keep the link. Raises Problem."""
    target = resolve(path)
    if not os.path.lexists(target):
        return
    with _folder_of(path, target) as folder:
        place = f"{folder}/{os.path.basename(target)}"
        status = ownership.status_of(place)
        if status is not None and stat.S_ISREG(status.st_mode):
            try:
                os.unlink(place)
            except OSError as error:
                raise _refusal(error, path, target) from None


def can_write(path: str) -> bool:
    """Return whether a file can be written or replaced. If its folder is missing, the nearest one above it counts."""
    target = os.path.realpath(path)
    if os.path.lexists(target) and not os.access(target, os.W_OK):
        return False
    folder = os.path.dirname(target)
    while not os.path.lexists(folder):
        folder = os.path.dirname(folder)
    return os.path.isdir(folder) and os.access(folder, os.W_OK | os.X_OK)


def is_masked(path: str) -> bool:
    """Return whether an operator has switched a file off by a link to /dev/null (`systemctl mask`, sysctl.d(5))."""
    return os.path.islink(path) and os.path.realpath(path) == os.devnull


def resolve(path: str) -> str:
    """Return the path with its symbolic links resolved; the file may not exist yet.

    Raises Problem if a link in the path is not root's (or the present user's), or if the links form a loop.
    """
    owners, step = ownership.roots() | {os.geteuid()}, path
    try:
        for step, status in ownership.walk(path):  # the last step is where the path leads
            if status is not None and stat.S_ISLNK(status.st_mode) and status.st_uid not in owners:
                raise Problem(
                    f"{step} is a link of user {status.st_uid}, not of root: that user could point it anywhere",
                    f"make it root's: chown -h root {step}",
                )
    except OSError as error:
        if error.errno:
            raise
        raise Problem(f"{path}: {step} is part of a symbolic link loop", f"remove the link: rm {step}") from None
    return step


@contextlib.contextmanager
def _folder_of(path: str, target: str) -> Iterator[str]:
    """Yield a path of `target`'s folder that stays valid even if another user changes a folder above it."""
    here = os.open("/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        for part in os.path.dirname(target).split("/"):
            if part:
                inner = os.open(part, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=here)
                os.close(here)
                here = inner
        yield f"/proc/self/fd/{here}"
    except FileNotFoundError:
        folder = os.path.dirname(target)
        raise Problem(
            f"{_named(path, target)} can't be written: there is no folder {folder}",
            f"mkdir -p {folder}" + (f", or remove the link: rm {path}" if os.path.islink(path) else ""),
        ) from None
    except OSError as error:
        raise _refusal(error, path, target) from None
    finally:
        os.close(here)


def _copy_attributes(new: int, place: str) -> None:
    """Give a new file the owner, mode, ACL and other attributes of the one at `place`."""
    like = os.lstat(place)
    made = os.fstat(new)
    if (made.st_uid, made.st_gid) != (like.st_uid, like.st_gid):
        os.fchown(new, like.st_uid, like.st_gid)
    os.fchmod(new, stat.S_IMODE(like.st_mode))
    for name in _attributes(place):
        try:
            os.setxattr(new, name, os.getxattr(place, name))
        except OSError as error:
            if not name.startswith("security.") or error.errno not in (errno.EPERM, errno.EOPNOTSUPP):
                raise  # only the security module may set its label


def _attributes(place: str) -> list[str]:
    try:
        return os.listxattr(place)
    except OSError as error:
        if error.errno == errno.EOPNOTSUPP:
            return []
        raise


def _rewrite(place: str, data: bytes) -> None:
    """Rewrite a file in place; truncate it last, so that it is never empty. The journal has both texts."""
    descriptor = os.open(place, os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        written = 0
        while written < len(data):
            written += os.pwrite(descriptor, data[written:], written)
        os.ftruncate(descriptor, len(data))
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _refusal(error: OSError, path: str, target: str) -> Problem:
    hints = {
        errno.EROFS: "its file system is mounted read-only",
        errno.EPERM: f"lsattr -d {target} {os.path.dirname(target)} shows whether it is immutable; chattr -i ends that",
    }
    reason = error.strerror or str(error)
    return Problem(f"{_named(path, target)} can't be written: {reason}", hints.get(error.errno or 0, ""))


def _named(path: str, target: str) -> str:
    return path if path == target else f"{path}, which leads to {target},"
