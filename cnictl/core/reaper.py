"""Find out whether a child that outlives this process will be collected, or stay in the process table as a zombie.

The kernel passes the child to the nearest ancestor that is a subreaper, or to process 1 (prctl(2)). It doesn't show
which processes are subreapers, and a process 1 such as `sleep infinity` collects nothing. So each ancestor must be a
program that is known to collect children, or known not to be a subreaper.
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
"""Names (proc(5), comm) of programs that are made to run as process 1, or as a subreaper, and collect children."""
_NO_SUBREAPERS = frozenset(
    (
        *("containerd", "crio", "podman", "buildah", "nerdctl", "dockerd", "cri-dockerd", "kubelet", "cnitool"),
        *("bash", "dash", "sh", "sudo", "su", "sshd", "sshd-session", "login", "runc", "crun", "cnictl"),
    )
)
"""Names of runtimes and of the programs that usually start them."""
_MOST_ANCESTORS = 32
_SIGCHLD = 1 << 16  # signal(7): 17


def collects() -> bool:
    """Return whether it is known that a child which outlives this process will be collected."""
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
    """Return a process's name and its parent's number; an empty name if it has ended."""
    try:
        text = durable.contents(f"/proc/{number}/stat").decode("utf-8", "replace")
        name, _, rest = text.partition("(")[2].rpartition(")")
        return name, int(rest.split()[1])
    except (OSError, ValueError, IndexError):
        return "", 0


def _awaits_children() -> bool:
    """Return whether process 1 ignores, catches or waits for SIGCHLD; if not, it collects no children."""
    try:
        text = durable.contents("/proc/1/status").decode("utf-8", "replace")
    except OSError:
        return False
    return any(
        int(line.partition(":")[2], 16) & _SIGCHLD
        for line in text.splitlines()
        if line.startswith(("SigBlk:", "SigIgn:", "SigCgt:"))
    )
