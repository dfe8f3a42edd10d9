"""Whom the lab's processes stand for outside: nobody with any right on the host, and what may forbid that."""

import contextlib
import errno
import os

from cnictl.lab import root
from cnictl.lab.syscalls import CLONE_NEWNS, CLONE_NEWUSER, allow_inspection, unshare

NOBODY = 65534


class Forbidden(Exception):
    """The host doesn't let this user make a lab; the message says what forbids it, `mend` what to do."""

    def __init__(self, message: str, mend: str) -> None:
        super().__init__(message)
        self.mend = mend


def enter_user_namespace(others: int, proc: str) -> None:
    """Become root of a new user namespace (and of new `others`), which stands for the present user outside."""
    user, group = os.geteuid(), os.getegid()
    unshare(CLONE_NEWUSER | CLONE_NEWNS | others)
    for name, text in (("setgroups", "deny"), ("uid_map", f"0 {user} 1"), ("gid_map", f"0 {group} 1")):
        with open(f"{proc}/self/{name}", "w", encoding="utf-8") as file:
            file.write(text)


def become_nobody(needed: list[str]) -> None:
    """Go on without root's rights, so that root inside the lab owns nothing outside.

    Raises Forbidden if one of the files `needed` inside can't be read then.
    """
    try:
        os.setgroups([])
        os.setresgid(NOBODY, NOBODY, NOBODY)
        os.setresuid(NOBODY, NOBODY, NOBODY)
    except OSError:
        return  # root of a user namespace without other users: an ordinary user already
    allow_inspection()
    for path in needed:
        if not root.readable(path):
            raise Forbidden(f"{path} is readable by root alone", "install cnictl where every user may read it")


def explained(error: OSError, as_root: bool) -> Exception:
    """Why the kernel refused a namespace or a mount in it, as far as its switches tell; other errors as they are."""
    if error.errno not in (errno.EPERM, errno.EACCES, errno.ENOSPC, errno.EUSERS, errno.EINVAL, errno.ENOSYS):
        return error
    again = "run it as root: sudo cnictl lab up"
    for switch, off, mend in (
        ("user/max_user_namespaces", "0", "as root: sysctl -w user.max_user_namespaces=10000"),
        ("kernel/unprivileged_userns_clone", "0", again),
        ("kernel/apparmor_restrict_unprivileged_userns", "1", again),
    ):
        if _switch(switch) == off and (not as_root or switch.startswith("user/")):
            name = switch.replace("/", ".", 1)
            return Forbidden(f"this host forbids user namespaces: {name} is {off}", mend)
    if as_root:
        return Forbidden(f"root may not make namespaces here: {error.strerror}", "run it outside the container")
    return Forbidden(f"this host forbids user namespaces: {error.strerror}", again)


def _switch(name: str) -> str:
    for proc in ("/proc", f"{root.HOST}/proc"):
        with contextlib.suppress(OSError), open(f"{proc}/sys/{name}", encoding="utf-8") as file:
            return file.read().strip()
    return ""
