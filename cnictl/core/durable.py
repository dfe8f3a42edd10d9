"""Files that appear whole or not at all, and survive a power cut once they have."""

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
"""Bytes of a file that are read at most. What cnictl reads has a few KiB; a log and a journal may have more."""
AT_ONCE = O_NONBLOCK | O_NOCTTY | O_CLOEXEC
"""Flags of open(2) for a file that somebody may have put a pipe or a terminal in place of: it must not hold us."""

# sys/stat.h, for the interpreter's `stat` is none of its C modules
_KIND, _REGULAR, _DIRECTORY = 0o170000, 0o100000, 0o040000


def create(path: str, data: bytes, mode: int) -> int:
    """Create `path` holding `data`; returns a descriptor that is open for reading and writing, under no other name.

    Raises FileExistsError if the name is taken, OSError else; then nothing is left behind.
    """
    folder = path.rpartition("/")[0]
    descriptor, name = unnamed(folder, data, mode)
    try:
        give_name(descriptor, name, path)
    except OSError:
        close(descriptor)
        raise
    return descriptor


def unnamed(folder: str, data: bytes, mode: int, sync: bool = True) -> tuple[int, str]:
    """A file in `folder` holding `data`, on disk (with `sync`) but without a name yet; for `give_name` or `discard`.

    The second value is a temporary name, where the file system has no O_TMPFILE, or empty.
    """
    name = ""
    try:
        descriptor = open(folder, O_TMPFILE | O_RDWR | O_CLOEXEC, mode)
    except OSError as error:
        if error.errno not in _NO_TMPFILE:
            raise
        # where several nodes share the folder, the number of a process is none of its own
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
    """Close an `unnamed` file; if it was not given a name, nothing is left of it."""
    close(descriptor)
    if name:
        try:
            unlink(name)
        except FileNotFoundError:
            return


def give_name(descriptor: int, name: str, path: str) -> None:
    """Let an `unnamed` file appear at `path`. Raises FileExistsError if that is taken."""
    if name:
        try:
            link(name, path)
        finally:
            unlink(name)
        return
    # linkat(2) follows /proc's link only with AT_SYMLINK_FOLLOW, which Python passes only beside a directory
    # descriptor; both paths are absolute, so that one is never used
    here = open("/", O_RDONLY | O_DIRECTORY | O_CLOEXEC)
    try:
        link(f"/proc/self/fd/{descriptor}", path, src_dir_fd=here, follow_symlinks=True)
    finally:
        close(here)


def clear_temporary(folder: str) -> None:
    """Remove what was to get a name in this folder when its process was killed: temporary files that nobody holds."""
    try:
        names = listdir(folder)
    except OSError:
        return  # none, or not ours to read
    for name in names:
        if name.startswith(TEMPORARY):
            _remove_unheld(f"{folder}/{name}")


def replace(path: str, data: bytes, mode: int, prepare: "Callable[[int], None] | None" = None) -> None:
    """Give `path` new content in one step: by a temporary file in its folder, whose name no reader of folders takes.

    For files of cnictl's own: what stands at `path`, a link too, is replaced. `cnictl.node.plugin.files` writes the
    others; its `prepare` is called with the new file's descriptor before that gets its name.
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
    holding = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC)
    try:
        fsync(holding)
    finally:
        close(holding)


def contents(path: str, most: int = LARGEST) -> bytes:
    """Return the whole of a regular file.

    Raises OSError that names the file, also if it is a pipe or device (which could block or never end), or if it has
    more than `most` bytes.
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
    """Return all that a descriptor gives from where it stands. Raises OSError past `most` bytes."""
    pieces, left = [], most
    while piece := read(descriptor, 1 << 14):
        left -= len(piece)
        if left < 0:
            raise OSError(errno.EFBIG, f"has more than the {most >> 10} KiB that are read")
        pieces.append(piece)
    return b"".join(pieces)


def ensure_regular(descriptor: int, path: str) -> None:
    """Raise OSError if an open file is a folder, pipe or device. `path` is its name for the error."""
    kind = fstat(descriptor).st_mode & _KIND
    if kind == _DIRECTORY:
        raise OSError(errno.EISDIR, "is a folder, not a file", path)
    if kind != _REGULAR:
        raise OSError(errno.EINVAL, "is not a regular file", path)


def is_folder(path: str) -> bool:
    """Whether a path leads to a folder. Raises OSError where nothing is, or the way can't be gone."""
    return stat(path).st_mode & _KIND == _DIRECTORY


def make_folder(path: str, mode: int = 0o755) -> None:
    """Make a folder and those above it; one that is there is no error."""
    try:
        mkdir(path, mode)
    except FileExistsError:
        return
    except FileNotFoundError:
        make_folder(path.rpartition("/")[0], mode)
    else:
        return
    try:
        mkdir(path, mode)  # raises where a symbolic link above it leads nowhere
    except FileExistsError:
        return


def _naming(error: OSError, path: str) -> OSError:
    """The error with what it is about: of a call on a descriptor the kernel names none."""
    return OSError(error.errno, error.strerror, path)


def _open_new(name: str, mode: int) -> int:
    """Create a temporary file; one of this name is of a process that died with our number, and goes."""
    try:
        return open(name, O_CREAT | O_EXCL | O_RDWR | O_CLOEXEC, mode)
    except FileExistsError:
        unlink(name)
        return open(name, O_CREAT | O_EXCL | O_RDWR | O_CLOEXEC, mode)


def _open_held(name: str, mode: int) -> int:
    """Create a temporary file and hold it under flock(2), so that `clear_temporary` sees that someone is at work."""
    while True:
        descriptor = _open_new(name, mode)
        try:
            flock(descriptor, LOCK_EX)
        except OSError:
            return descriptor  # a file system without locks: no sweep gets one there either, and none removes it
        if fstat(descriptor).st_nlink:
            return descriptor
        close(descriptor)  # it was cleared away between the two


def _remove_unheld(path: str) -> None:
    """Remove a temporary file unless its writer lives; what is none, or can't be removed, stays."""
    try:
        descriptor = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK)
    except OSError:
        return
    try:
        flock(descriptor, LOCK_EX | LOCK_NB)
        held, there = fstat(descriptor), lstat(path)
        if (held.st_dev, held.st_ino) == (there.st_dev, there.st_ino):  # else its writer named it and began the next
            unlink(path)
    except OSError:
        return
    finally:
        close(descriptor)


def _write_all(descriptor: int, data: bytes) -> None:
    while data:
        data = data[write(descriptor, data) :]
