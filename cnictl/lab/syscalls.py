"""Make the system calls for which Python 3.11 has no function. Imports ctypes and nothing of cnictl."""

import ctypes
import os

CLONE_NEWNS = 0x00020000
CLONE_NEWUTS = 0x04000000
CLONE_NEWIPC = 0x08000000
CLONE_NEWUSER = 0x10000000
CLONE_NEWPID = 0x20000000
CLONE_NEWNET = 0x40000000

MS_NOSUID, MS_NODEV, MS_NOEXEC = 0x2, 0x4, 0x8
MS_BIND, MS_REC, MS_PRIVATE = 0x1000, 0x4000, 0x40000
_MNT_DETACH = 2

_PR_SET_PDEATHSIG, _PR_SET_DUMPABLE, _PR_SET_NAME = 1, 4, 15
# linux/mount.h; calls from number 424 on have the same number on every architecture but alpha
_SYS_MOUNT_SETATTR = 442
_AT_FDCWD, _AT_RECURSIVE = -100, 0x8000
_MOUNT_ATTR_RDONLY, _MOUNT_ATTR_NOSUID = 0x1, 0x2
_SYS_PIVOT_ROOT = {"x86_64": 155, "ppc64le": 203, "s390x": 217, "i686": 217, "armv7l": 218}.get(os.uname().machine, 41)

_libc = ctypes.CDLL(None, use_errno=True)


class _MountAttributes(ctypes.Structure):
    _fields_ = [(name, ctypes.c_uint64) for name in ("set", "clear", "propagation", "userns")]


def unshare(namespaces: int) -> None:
    """Leave the given namespaces (CLONE_NEW… flags) for new ones. Raises OSError."""
    _check(_libc.unshare(namespaces), "unshare")


def setns(descriptor: int, kind: int = 0) -> None:
    """Enter the namespace of an open /proc/PID/ns file. Raises OSError."""
    _check(_libc.setns(descriptor, kind), "setns")


def mount(source: str, target: str, kind: str, flags: int = 0, options: str = "") -> None:
    """Mount `source` at `target`. Raises OSError naming the target."""
    status = _libc.mount(
        os.fsencode(source), os.fsencode(target), kind.encode(), ctypes.c_ulong(flags), options.encode() or None
    )
    _check(status, f"mount {kind or source} on {target}")


def bind(source: str, target: str) -> None:
    """Bind-mount the tree at `source`, with all mounts below it, at `target`. Raises OSError."""
    mount(source, target, "", MS_BIND | MS_REC)


def make_read_only(target: str) -> None:
    """Make the mount at `target` and all mounts below it read-only and keep other flags (mount_setattr, Linux 5.12).

    Raises OSError.
    """
    wanted = _MountAttributes(set=_MOUNT_ATTR_RDONLY | _MOUNT_ATTR_NOSUID)
    status = _libc.syscall(
        ctypes.c_long(_SYS_MOUNT_SETATTR),
        ctypes.c_long(_AT_FDCWD),
        ctypes.c_char_p(os.fsencode(target)),
        ctypes.c_long(_AT_RECURSIVE),
        ctypes.byref(wanted),
        ctypes.c_long(ctypes.sizeof(wanted)),
    )
    _check(status, f"make {target} read-only (needs Linux 5.12)")


def pivot_root(new: str, old: str) -> None:
    """Make the mount `new` the root and put the old root at `old`. Raises OSError."""
    status = _libc.syscall(ctypes.c_long(_SYS_PIVOT_ROOT), os.fsencode(new), os.fsencode(old))
    _check(status, f"pivot_root to {new}")


def leave_for(root: str) -> None:
    """Make the mount `root` the root and unmount the old one with all mounts below it.

    Raises OSError.
    """
    os.chdir(root)
    pivot_root(".", ".")  # the old root now lies on top of the new one
    _check(_libc.umount2(b".", _MNT_DETACH), "umount the old root")
    os.chdir("/")


def die_with_parent(signal: int) -> None:
    """Have the kernel send this process `signal` when its parent ends."""
    _check(_libc.prctl(_PR_SET_PDEATHSIG, ctypes.c_ulong(signal)), "prctl")


def allow_inspection() -> None:
    """Let the user's other processes open /proc/PID/ns again; a change of user forbids it."""
    _check(_libc.prctl(_PR_SET_DUMPABLE, ctypes.c_ulong(1)), "prctl")


def rename_process(name: str) -> None:
    """Set the name that `ps` shows; the kernel cuts it to 15 bytes."""
    _check(_libc.prctl(_PR_SET_NAME, ctypes.c_char_p(name.encode())), "prctl")


def _check(status: int, what: str) -> None:
    if status != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")
