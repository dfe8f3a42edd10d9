"""Write a file that the operator named on the command line.

A regular file is replaced in one step. A device or a pipe is written to and keeps its mode and owner. A symbolic link
is followed, unless a user other than root could have made it.
"""

import os
import stat
import sys

from cnictl.core import durable
from cnictl.core.errors import Problem
from cnictl.node.plugin import files


def is_stdout(path: str) -> bool:
    """Return whether a path leads to this process's stdout; then nothing else may be printed there."""
    try:
        return os.path.samestat(os.stat(path), os.fstat(1))
    except OSError:
        return False


def write(path: str, data: bytes, mode: int, keep_mode: bool = False) -> None:
    """Write `data` to `path`; a new file gets `mode`, and so does one that is replaced unless `keep_mode`.

    Raises Problem if the path leads through a link of a user other than root and the operator, or can't be written.
    """
    if is_stdout(path):
        sys.stdout.buffer.write(data)
        sys.stdout.flush()
        return
    target = files.resolve(os.path.abspath(path))
    try:
        kind = stat.S_IFMT(os.lstat(target).st_mode)
    except (FileNotFoundError, NotADirectoryError):
        kind = 0
    if kind in (0, stat.S_IFREG):
        files.write(os.path.abspath(path), data, mode, keep=keep_mode)
        return
    try:
        # a pipe that nobody reads is an error rather than a wait for a reader
        with open(os.open(target, os.O_WRONLY | os.O_NOFOLLOW | durable.AT_ONCE), "wb", buffering=0) as special:
            os.set_blocking(special.fileno(), True)
            while data:
                data = data[special.write(data) :]
    except OSError as error:
        raise Problem(f"{error.filename or path}: {error.strerror}") from None
