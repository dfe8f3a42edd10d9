"""Read files of a process with another root folder, such as a container's. Somebody else controls these files.

The kernel resolves symbolic links within that root (openat2(2), RESOLVE_IN_ROOT, Linux 5.6), so that a container can't
lead a reader to a file of this host.
"""

import ctypes
import os

from cnictl.core import durable

_SYS_OPENAT2, _RESOLVE_IN_ROOT = 437, 0x10
_LARGEST = 1 << 20


class _OpenHow(ctypes.Structure):
    """`open_how` of linux/openat2.h."""

    _fields_ = [("flags", ctypes.c_uint64), ("mode", ctypes.c_uint64), ("resolve", ctypes.c_uint64)]


def contents_within(root: str, path: str, most: int = _LARGEST) -> bytes:
    """Return the content of the file at `path`, as a process with the root folder at `root` sees it.

    `root` may be `/proc/PID/root`. Raises OSError if there is no regular file, or it has more than `most` bytes.
    """
    folder = os.open(root, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        how = _OpenHow(os.O_RDONLY | durable.AT_ONCE, 0, _RESOLVE_IN_ROOT)
        libc = ctypes.CDLL(None, use_errno=True)
        descriptor = libc.syscall(
            _SYS_OPENAT2, folder, os.fsencode(path), ctypes.byref(how), ctypes.c_size_t(ctypes.sizeof(how))
        )
        if descriptor < 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number), path)
    finally:
        os.close(folder)
    try:
        durable.ensure_regular(descriptor, path)
        return durable.contents_of(descriptor, most)
    finally:
        os.close(descriptor)
