"""Write a file that the operator named on the command line, whatever stands under that name already.

A regular file is replaced in one step. A device or a pipe is written to and stays what it is, mode and owner
included; a symbolic link is followed, unless somebody else than root could have put it there.
"""

import os
import stat
import sys

from cnictl.core import durable
from cnictl.core.errors import Problem


def is_stdout(path: str) -> bool:
    """Return whether a path leads to this process's own stdout: then nothing else may be printed there."""
    try:
        return os.path.samestat(os.stat(path), os.fstat(1))
    except OSError:
        return False


def write(path: str, data: bytes, mode: int, keep_mode: bool = False) -> None:
    """Write `data` to `path`; a new file gets `mode`, and so does one that is replaced unless `keep_mode`.

    Raises Problem if the path leads through a link that is not the operator's, or can't be written.
    """
    try:
        target = _followed(path)
        if is_stdout(target):
            sys.stdout.buffer.write(data)
            sys.stdout.flush()
            return
        try:
            found = os.stat(target)
        except FileNotFoundError:
            durable.replace(target, data, mode)
            return
        if not stat.S_ISREG(found.st_mode):
            _write_into(target, data)
        elif keep_mode:
            durable.replace(target, data, stat.S_IMODE(found.st_mode), (found.st_uid, found.st_gid))
        else:
            durable.replace(target, data, mode)
    except OSError as error:
        raise Problem(f"{error.filename or path}: {error.strerror}") from None


def _followed(path: str) -> str:
    """The path with a link in its last part resolved. Raises Problem for one that root must not follow."""
    try:
        link = os.lstat(path)
    except FileNotFoundError:
        return path
    if not stat.S_ISLNK(link.st_mode):
        return path
    folder = os.stat(os.path.dirname(path) or ".")
    shared = folder.st_mode & (stat.S_IWOTH | stat.S_IWGRP) and not folder.st_mode & stat.S_ISVTX
    if link.st_uid not in (0, os.geteuid()) or shared or folder.st_uid not in (0, os.geteuid()):
        raise Problem(
            f"{path} is a symbolic link that another user could have put there, to {os.readlink(path)!r}",
            "name the file itself, or a folder that only root can write to",
        )
    return path if os.path.realpath(path).startswith("/proc/") else os.path.realpath(path)


def _write_into(path: str, data: bytes) -> None:
    """Write into a device or pipe. One that nobody reads is an error rather than a wait for a reader."""
    descriptor = os.open(path, os.O_WRONLY | durable.AT_ONCE)
    try:
        os.set_blocking(descriptor, True)
        while data:
            data = data[os.write(descriptor, data) :]
    finally:
        os.close(descriptor)
