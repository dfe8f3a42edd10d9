"""Write files that appear whole or not at all and then survive a power cut, and read files within bounds."""

import errno
from fcntl import LOCK_EX, LOCK_NB, flock
from posix import (
    O_CLOEXEC,
    O_CREAT,
    O_DIRECTORY,
    O_EXCL,
    O_NOCTTY,
    O_NOFOLLOW,
    O_NONBLOCK,
    O_RDONLY,
    O_RDWR,
    O_TMPFILE,
    close,
    fchmod,
    fstat,
    fsync,
    getpid,
    link,
    listdir,
    lstat,
    mkdir,
    open,
    read,
    rename,
    stat,
    unlink,
    urandom,
    write,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

_NO_TMPFILE = (errno.EOPNOTSUPP, errno.EISDIR, errno.EINVAL)
TEMPORARY = ".cnictl-new-"

LARGEST = 16 << 20
"""The most bytes of a file that are read. Most files have a few KiB; a log and a journal may have more."""
AT_ONCE = O_NONBLOCK | O_NOCTTY | O_CLOEXEC
"""Flags of open(2) for a file that may have been replaced by a pipe or terminal, on which open must not block."""

# sys/stat.h; the standard library's `stat` is not a C module and costs time to import
_KIND, _REGULAR, _DIRECTORY = 0o170000, 0o100000, 0o040000


def unnamed(folder: str, data: bytes, mode: int, sync: bool = True) -> tuple[int, str]:
    """Create a file in `folder` with `data` that has no name yet, for `give_name` or `discard`; `sync` it to disk.

    Returns its descriptor, and its temporary name if the file system lacks O_TMPFILE, else an empty name.
    """
    name = ""
    try:
        descriptor = open(folder, O_TMPFILE | O_RDWR | O_CLOEXEC, mode)
    except OSError as error:
        if error.errno not in _NO_TMPFILE:
            raise
        # on a shared folder another node may have a process of the same number
        name = f"{folder}/{TEMPORARY}{getpid()}-{urandom(8).hex()}"
        descriptor = _open_held(name, mode)
    try:
        fchmod(descriptor, mode)
        _write_all(descriptor, data)
        if sync:
            fsync(descriptor)
    except OSError as error:
        discard(descriptor, name)
        raise _naming(error, folder) from None
    return descriptor, name


def discard(descriptor: int, name: str) -> None:
    """Close an `unnamed` file; without a name nothing is left of it."""
    close(descriptor)
    if name:
        try:
            unlink(name)
        except FileNotFoundError:
            return


def give_name(descriptor: int, name: str, path: str) -> None:
    """Make an `unnamed` file appear at `path`. Raises FileExistsError if that is taken."""
    if name:
        try:
            link(name, path)
        finally:
            unlink(name)
        return
    # linkat(2) follows /proc's link only with AT_SYMLINK_FOLLOW, which Python passes only together with a directory
    # descriptor. Both paths are absolute, so the kernel never uses that descriptor.
    here = open("/", O_RDONLY | O_DIRECTORY | O_CLOEXEC)
    try:
        link(f"/proc/self/fd/{descriptor}", path, src_dir_fd=here, follow_symlinks=True)
    finally:
        close(here)


def clear_temporary(folder: str) -> None:
    """Remove the temporary files that killed processes left in a folder: those that nobody holds."""
    try:
        names = listdir(folder)
    except OSError:
        return  # there is no such folder, or we may not read it
    for name in names:
        if name.startswith(TEMPORARY):
            _remove_unheld(f"{folder}/{name}")


def replace(path: str, data: bytes, mode: int, prepare: "Callable[[int], None] | None" = None) -> None:
    """Give `path` new content in one step, by renaming a temporary file of its folder.

    This is for cnictl's own files: whatever is at `path` is replaced, even a symbolic link. Other files are written by
    `cnictl.node.plugin.files`, whose `prepare` gets the new file's descriptor before the rename.
    """
    head, slash, _ = path.rpartition("/")
    folder = head or slash or "."
    temporary = f"{folder}/{TEMPORARY}{getpid()}"
    descriptor = _open_held(temporary, mode)
    try:
        fchmod(descriptor, mode)
        _write_all(descriptor, data)
        if prepare is not None:
            prepare(descriptor)
        fsync(descriptor)
        rename(temporary, path)
    except OSError:
        unlink(temporary)
        raise
    finally:
        close(descriptor)
    directory = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC)
    try:
        fsync(directory)
    finally:
        close(directory)


def contents(path: str, most: int = LARGEST) -> bytes:
    """Return the content of a regular file.

    Raises OSError naming the file, including if it is a pipe or device (which could block or never end), or has more
    than `most` bytes.
    """
    descriptor = open(path, O_RDONLY | AT_ONCE)
    try:
        ensure_regular(descriptor, path)
        return contents_of(descriptor, most)
    except OSError as error:
        raise _naming(error, path) from None
    finally:
        close(descriptor)


def contents_of(descriptor: int, most: int = LARGEST) -> bytes:
    """Return what a descriptor gives from its present offset to the end. Raises OSError past `most` bytes."""
    pieces, left = [], most
    while piece := read(descriptor, 1 << 14):
        left -= len(piece)
        if left < 0:
            raise OSError(errno.EFBIG, f"is larger than the limit of {most >> 10} KiB")
        pieces.append(piece)
    return b"".join(pieces)


def ensure_regular(descriptor: int, path: str) -> None:
    """Raise OSError naming `path` if an open file is a folder, pipe or device."""
    kind = fstat(descriptor).st_mode & _KIND
    if kind == _DIRECTORY:
        raise OSError(errno.EISDIR, "is a folder, not a file", path)
    if kind != _REGULAR:
        raise OSError(errno.EINVAL, "is not a regular file", path)


def is_folder(path: str) -> bool:
    """Return whether a path leads to a folder. Raises OSError if nothing is there, or it can't be reached."""
    return stat(path).st_mode & _KIND == _DIRECTORY


def make_folder(path: str, mode: int = 0o755) -> None:
    """Make a folder and those above it; an existing one is not an error."""
    try:
        mkdir(path, mode)
    except FileExistsError:
        return
    except FileNotFoundError:
        make_folder(path.rpartition("/")[0], mode)
    else:
        return
    try:
        mkdir(path, mode)  # raises if a symbolic link above it leads nowhere
    except FileExistsError:
        return


def _naming(error: OSError, path: str) -> OSError:
    """Return the error with the file's name, which it lacks after a call on a descriptor."""
    return OSError(error.errno, error.strerror, path)


def _open_new(name: str, mode: int) -> int:
    """Create a temporary file. An existing one is left from a dead process that had our number, and is removed."""
    try:
        return open(name, O_CREAT | O_EXCL | O_RDWR | O_CLOEXEC, mode)
    except FileExistsError:
        unlink(name)
        return open(name, O_CREAT | O_EXCL | O_RDWR | O_CLOEXEC, mode)


def _open_held(name: str, mode: int) -> int:
    """Create a temporary file and hold it under flock(2), so that `clear_temporary` leaves it alone."""
    while True:
        descriptor = _open_new(name, mode)
        try:
            flock(descriptor, LOCK_EX)
        except OSError:
            return descriptor  # no locks on this file system: `clear_temporary` gets none either
        if fstat(descriptor).st_nlink:
            return descriptor
        close(descriptor)  # `clear_temporary` removed it before the lock


def _remove_unheld(path: str) -> None:
    """Remove a temporary file unless its writer still holds it; one that can't be removed stays."""
    try:
        descriptor = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK)
    except OSError:
        return
    try:
        flock(descriptor, LOCK_EX | LOCK_NB)
        opened, present = fstat(descriptor), lstat(path)
        if (opened.st_dev, opened.st_ino) == (
            present.st_dev,
            present.st_ino,
        ):  # else the writer has renamed it and started another
            unlink(path)
    except OSError:
        return
    finally:
        close(descriptor)


def _write_all(descriptor: int, data: bytes) -> None:
    while data:
        data = data[write(descriptor, data) :]
