"""Whether somebody collects a child that outlives this process: else it stays in the process table as a zombie.

The kernel gives it to the nearest ancestor that declared itself a subreaper, or to process 1 (prctl(2)). It doesn't
show who did that, and a process 1 such as `sleep infinity` collects nothing. So each ancestor must be a program of
which it is known that it collects children, or that it is no subreaper.
"""

from posix import getppid

from cnictl.core import durable

_COLLECT = frozenset(
    (
        *("systemd", "init", "openrc-init", "runit", "s6-svscan", "dinit", "procd", "upstart"),
        *("tini", "docker-init", "dumb-init", "catatonit", "podman-init", "pause"),
        *("conmon", "conmonrs", "containerd-shim"),
    )
)
"""Names (proc(5), comm) of programs that are made to be process 1, or subreapers that collect what they get."""
_NO_SUBREAPERS = frozenset(
    (
        *("containerd", "crio", "podman", "buildah", "nerdctl", "dockerd", "cri-dockerd", "kubelet", "cnitool"),
        *("bash", "dash", "sh", "sudo", "su", "sshd", "sshd-session", "login", "runc", "crun", "cnictl"),
    )
)
"""Names of runtimes and of what they are commonly started from."""
_MOST_ANCESTORS = 32
_SIGCHLD = 1 << 16  # signal(7): 17


def collects() -> bool:
    """Return whether a child of this process that is left behind is known to be collected."""
    number = getppid()
    for _ in range(_MOST_ANCESTORS):
        if number <= 0:  # it is in another pid namespace
            return False
        name, parent = _ancestor(number)
        if number == 1:
            return name in _COLLECT and _awaits_children()
        if name not in _COLLECT and name not in _NO_SUBREAPERS:
            return False
        number = parent
    return False


def _ancestor(number: int) -> tuple[str, int]:
    """Return a process's name and its parent's number; of one that ended an empty name."""
    try:
        text = durable.contents(f"/proc/{number}/stat").decode("utf-8", "replace")
        name, _, rest = text.partition("(")[2].rpartition(")")
        return name, int(rest.split()[1])
    except (OSError, ValueError, IndexError):
        return "", 0


def _awaits_children() -> bool:
    """Return whether process 1 ignores SIGCHLD, catches it or waits for it; one that does none collects nothing."""
    try:
        text = durable.contents("/proc/1/status").decode("utf-8", "replace")
    except OSError:
        return False
    return any(
        int(line.partition(":")[2], 16) & _SIGCHLD
        for line in text.splitlines()
        if line.startswith(("SigBlk:", "SigIgn:", "SigCgt:"))
    )
