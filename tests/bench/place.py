"""Run the benchmark in its own network and mount namespaces, so that it does not change the machine."""

import ctypes
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

_CLONE_NEWNET = 0x40000000
_INSIDE = "CNICTL_BENCH_INSIDE"
_libc = ctypes.CDLL(None, use_errno=True)


def go_inside(module: str) -> None:
    """Restart `python -m module` with the same arguments in new namespaces, unless it already runs there."""
    if os.environ.get(_INSIDE):
        _become_init()
        return
    command = [
        "unshare",
        "--net",
        "--mount",
        "--propagation",
        "private",
        "--pid",
        "--fork",
        "--kill-child",
        "--mount-proc",
    ]
    if os.geteuid():
        command += ["--user", "--map-root-user"]
    command += ["--", sys.executable, "-m", module, *sys.argv[1:]]
    os.execvpe(command[0], command, {**os.environ, _INSIDE: "1"})


def _become_init() -> None:
    """Make process 1 look like systemd and reap children, and continue in a child that looks like containerd.

    What a call leaves behind depends on the names of both processes (`cnictl.core.reaper`).
    """
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGCHLD])
    child = os.fork()
    if child == 0:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGCHLD])
        _rename("containerd")
        return
    _rename("systemd")
    while True:
        ended, status = os.wait()
        if ended == child:
            os._exit(os.waitstatus_to_exitcode(status) & 0xFF)


def _rename(name: str) -> None:
    with open("/proc/self/comm", "w", encoding="ascii") as file:
        file.write(name)


def cover(path: str, source: str = "") -> None:
    """Mount a new tmpfs over a folder, or bind `source` there if it is given."""
    command = ["mount", "--bind", source, path] if source else ["mount", "-t", "tmpfs", "tmpfs", path]
    subprocess.run(command, check=True)


def file_system(path: str) -> str:
    """Return the type of the file system that a path is on."""
    command = ["findmnt", "--noheadings", "--output", "FSTYPE", "--target", path]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()[-1]


@contextmanager
def within(netns: str) -> Iterator[None]:
    """Move this thread into a network namespace by its `ip netns` name, and back afterwards."""
    home = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    there = os.open(f"/run/netns/{netns}", os.O_RDONLY | os.O_CLOEXEC)
    try:
        _enter(there)
        yield
    finally:
        _enter(home)
        os.close(there)
        os.close(home)


def _enter(descriptor: int) -> None:
    if _libc.setns(descriptor, _CLONE_NEWNET):
        raise OSError(ctypes.get_errno(), "setns")


def ip(*words: str) -> None:
    """Run `ip`."""
    subprocess.run(["ip", *words], check=True)


def link_exists(name: str) -> bool:
    """Return whether this namespace has a link of that name. The kernel answers ENODEV if it has none."""
    try:
        socket.if_nametoindex(name)
    except OSError:
        return False
    return True


def make_node(name: str, number: int, outside: str) -> None:
    """Make a host's namespace, which forwards packets and has an uplink to `outside`."""
    ip("netns", "add", name)
    ip("link", "add", f"up{number}", "netns", name, "type", "veth", "peer", f"up{number}", "netns", outside)
    ip("-n", name, "link", "set", "lo", "up")
    for where, address in ((name, node_addresses(number)), (outside, outside_addresses(number))):
        ip("-n", where, "link", "set", f"up{number}", "up")
        ip("-n", where, "address", "add", f"{address[0]}/24", "dev", f"up{number}")
        ip("-n", where, "address", "add", f"{address[1]}/64", "dev", f"up{number}", "nodad")
    with within(name):
        for sysctl in ("ipv4/ip_forward", "ipv6/conf/all/forwarding"):
            with open(f"/proc/sys/net/{sysctl}", "w", encoding="ascii") as file:
                file.write("1")


def node_addresses(number: int) -> tuple[str, str]:
    """Return a host's addresses on its uplink, IPv4 and IPv6."""
    return f"198.51.{number}.2", f"2001:db8:{number}::2"


def outside_addresses(number: int) -> tuple[str, str]:
    """Return the outside host's addresses on a host's uplink, IPv4 and IPv6."""
    return f"198.51.{number}.1", f"2001:db8:{number}::1"


def source_seen(pod: str, outside: str, target: str) -> str:
    """Return the source address that `target` in `outside` sees on a pod's datagram; empty if none arrives."""
    family = socket.AF_INET6 if ":" in target else socket.AF_INET
    with within(outside):
        receiver = socket.socket(family, socket.SOCK_DGRAM)
    with within(pod):
        sender = socket.socket(family, socket.SOCK_DGRAM)
    with receiver, sender:
        receiver.settimeout(5)
        receiver.bind((target, 0))
        sender.sendto(b"who am I", receiver.getsockname())
        try:
            return str(receiver.recvfrom(64)[1][0])
        except TimeoutError:
            return ""
