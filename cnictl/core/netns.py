"""Network namespaces: open, identify and enter them (setns(2), ioctl_ns(2))."""

import errno
from fcntl import ioctl
from posix import O_CLOEXEC, O_NONBLOCK, O_RDONLY, close, fstat, stat
from posix import open as open_descriptor

from cnictl.core.errors import INVALID_ENVIRONMENT, UNKNOWN_CONTAINER, CniError

_NS_GET_NSTYPE = 0xB703
_CLONE_NEWNET = 0x40000000


class Netns:
    """An open network namespace. Its device and inode identify it, whatever path it has."""

    __slots__ = ("descriptor", "device", "inode", "path")

    def __init__(self, path: str) -> None:
        """Open the namespace. Raises CniError 3 if nothing is there, 4 if it is not a network namespace."""
        self.path = path
        try:
            self.descriptor = open_descriptor(path, O_RDONLY | O_NONBLOCK | O_CLOEXEC)  # open must not block on a pipe
        except OSError as error:
            code = UNKNOWN_CONTAINER if error.errno in (errno.ENOENT, errno.ENOTDIR) else INVALID_ENVIRONMENT
            raise CniError(code, f"CNI_NETNS {path!r}: {error.strerror}") from None
        try:
            kind = ioctl(self.descriptor, _NS_GET_NSTYPE)
        except OSError:
            kind = 0
        if kind != _CLONE_NEWNET:
            close(self.descriptor)
            raise CniError(INVALID_ENVIRONMENT, f"CNI_NETNS {path!r}: not a network namespace")
        status = fstat(self.descriptor)
        self.device, self.inode = status.st_dev, status.st_ino

    @property
    def ours(self) -> bool:
        """Whether this process is in it. Then it is the host's namespace, and no pod may be set up there."""
        here = stat("/proc/self/ns/net")
        return (here.st_dev, here.st_ino) == (self.device, self.inode)

    def enter(self) -> None:
        """Move the calling thread into the namespace. Open sockets stay in the previous one."""
        try:
            _setns(self.descriptor)
        except OSError as error:
            raise CniError(INVALID_ENVIRONMENT, f"CNI_NETNS {self.path!r}: {error.strerror or error}") from None

    def close(self) -> None:
        """Close the descriptor."""
        close(self.descriptor)


class Inside:
    """Context in which the calling thread is in a namespace; afterwards it is back in its own."""

    __slots__ = ("_home", "_netns")

    def __init__(self, netns: Netns) -> None:
        self._netns = netns
        self._home = -1

    def __enter__(self) -> None:
        self._home = open_descriptor("/proc/thread-self/ns/net", O_RDONLY | O_CLOEXEC)
        self._netns.enter()

    def __exit__(self, *_: object) -> None:
        _setns(self._home)
        close(self._home)


class Scratch:
    """Context in which the calling thread is in a new network namespace; afterwards it is back in its own."""

    __slots__ = ("_home",)

    def __enter__(self) -> None:
        self._home = open_descriptor("/proc/thread-self/ns/net", O_RDONLY | O_CLOEXEC)
        try:
            _unshare()
        except OSError:
            close(self._home)
            raise

    def __exit__(self, *_: object) -> None:
        _setns(self._home)
        close(self._home)


def identity(path: str) -> tuple[int, int] | None:
    """Return device and inode of the namespace at a path, or None if nothing is there."""
    try:
        status = stat(path)
    except OSError:
        return None
    return status.st_dev, status.st_ino


def _setns(descriptor: int) -> None:
    import posix

    if hasattr(posix, "setns"):  # Python 3.12
        posix.setns(descriptor, _CLONE_NEWNET)
        return
    if _call("setns", descriptor, _CLONE_NEWNET):
        raise OSError(errno.EPERM, "setns(2) refused: root in the runtime's user namespace is needed")


def _unshare() -> None:
    import posix

    if hasattr(posix, "unshare"):  # Python 3.12
        posix.unshare(_CLONE_NEWNET)
    elif _call("unshare", _CLONE_NEWNET):
        raise OSError(errno.EPERM, "unshare(2) refused")


def _call(function: str, *arguments: int) -> int:
    """Call a function of the C library that the interpreter is linked to; it returns 0 for success."""
    try:
        from _ctypes import call_function, dlopen, dlsym

        status: int = call_function(dlsym(dlopen(None, 0), function), arguments)  # type: ignore[arg-type]
    except ImportError:
        from ctypes import CDLL

        status = CDLL(None)[function](*arguments)
    return status
