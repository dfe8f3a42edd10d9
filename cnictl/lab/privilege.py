"""Give up root's rights on the host for a lab, and explain why the host forbids a lab."""

import contextlib
import errno
import os

from cnictl.core.errors import Problem
from cnictl.lab import root
from cnictl.lab.owners import Owners, own_range
from cnictl.lab.syscalls import CLONE_NEWNS, CLONE_NEWUSER, allow_inspection, unshare


class Forbidden(Problem):
    """The host doesn't let this user make a lab."""


class Maps:
    """A child process that stays root to write a user namespace's maps, which needs rights outside of it."""

    def __init__(self, owners: Owners, proc: str) -> None:
        """Start the child. It serves only this process, and ends with it."""
        listening, self._asking = os.pipe()
        self._child = os.fork()
        if self._child == 0:
            os.close(self._asking)
            os._exit(_write_maps(listening, f"{proc}/{os.getppid()}", owners))
        os.close(listening)

    def write(self) -> None:
        """Write the maps of this process's present user namespace. Raises OSError."""
        os.write(self._asking, b"!")
        self.end()

    def end(self) -> None:
        """End the child. Raises OSError with the child's error."""
        os.close(self._asking)
        _, status = os.waitpid(self._child, 0)
        failed = os.waitstatus_to_exitcode(status)
        if failed:
            raise OSError(failed, os.strerror(failed))


def _write_maps(listening: int, process: str, owners: Owners) -> int:
    """Be the child; return an errno, 0 for success."""
    if not os.read(listening, 1):
        return 0  # the parent has ended, or does not need the maps
    try:
        for name in ("uid_map", "gid_map"):
            with open(f"{process}/{name}", "w", encoding="utf-8") as file:
                file.write(f"0 {owners.first} {owners.count}")
    except OSError as error:
        return error.errno or errno.EIO
    return 0


def enter_user_namespace(others: int, proc: str, maps: Maps | None = None) -> None:
    """Become root of a new user namespace and of new namespaces of the kinds `others` (CLONE_NEW… flags).

    Its root maps to the present user. With `maps`, a range of users that begins with the present user is mapped.
    """
    user, group = os.geteuid(), os.getegid()
    unshare(CLONE_NEWUSER | CLONE_NEWNS | others)
    if maps is not None:
        maps.write()
        return
    for name, text in (("setgroups", "deny"), ("uid_map", f"0 {user} 1"), ("gid_map", f"0 {group} 1")):
        with open(f"{proc}/self/{name}", "w", encoding="utf-8") as file:
            file.write(text)


def give_up_root(needed: list[str], proc: str) -> Maps | None:
    """Become the first of the users that are reserved for the lab, so that its root owns nothing outside.

    Return None if this process is root of a user namespace without other users, and is thus already an ordinary user.
    Raises Forbidden if the lab could not read one of the files `needed`.
    """
    owners = own_range(root.HOST)
    if owners is None:
        return None
    maps = Maps(owners, proc)
    try:
        os.setgroups([])
        os.setresgid(owners.first, owners.first, owners.first)
        os.setresuid(owners.first, owners.first, owners.first)
    except OSError:
        maps.end()
        return None  # a container without capabilities can't change its user
    allow_inspection()
    for path in needed:
        if not root.readable(path):
            maps.end()
            raise Forbidden(f"only root can read {path}", "install cnictl where every user can read it")
    return maps


def explained(error: OSError, as_root: bool) -> Exception:
    """Return the reason why the kernel refused a namespace or a mount in it; other errors are returned unchanged."""
    if error.errno not in (errno.EPERM, errno.EACCES, errno.ENOSPC, errno.EUSERS, errno.EINVAL, errno.ENOSYS):
        return error
    again = "run the same command as root, with sudo"
    for switch, off, hint in (
        ("user/max_user_namespaces", "0", "as root: sysctl -w user.max_user_namespaces=10000"),
        ("kernel/unprivileged_userns_clone", "0", again),
        ("kernel/apparmor_restrict_unprivileged_userns", "1", again),
    ):
        if _switch(switch) == off and (not as_root or switch.startswith("user/")):
            name = switch.replace("/", ".", 1)
            return Forbidden(f"this host forbids user namespaces: {name} is {off}", hint)
    if as_root:
        return Forbidden(f"root can't make namespaces here: {error.strerror}", "run it outside the container")
    return Forbidden(f"this host forbids user namespaces: {error.strerror}", again)


def _switch(name: str) -> str:
    for proc in ("/proc", f"{root.HOST}/proc"):
        with contextlib.suppress(OSError), open(f"{proc}/sys/{name}", encoding="utf-8") as file:
            return file.read().strip()
    return ""
