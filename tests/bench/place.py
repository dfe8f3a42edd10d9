"""Give the benchmark network and mount namespaces of its own, so that it leaves the machine alone."""

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
    """Start `python -m module` again with the same arguments in namespaces of its own, unless that is where we are."""
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
    """Go on in a child of process 1, which collects children as systemd does; the measured calls come from a runtime.

    What a call leaves behind depends on both (`cnictl.core.reaper`).
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
    """Lay a fresh tmpfs over a folder, or `source` if one is named."""
    command = ["mount", "--bind", source, path] if source else ["mount", "-t", "tmpfs", "tmpfs", path]
    subprocess.run(command, check=True)


def file_system(path: str) -> str:
    """Type of the file system a path is on."""
    command = ["findmnt", "--noheadings", "--output", "FSTYPE", "--target", path]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()[-1]


@contextmanager
def within(netns: str) -> Iterator[None]:
    """Put this thread into a network namespace by its `ip netns` name, and back again."""
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
    """Whether the namespace has a link of that name; the kernel says ENODEV where it has none."""
    try:
        socket.if_nametoindex(name)
    except OSError:
        return False
    return True


def make_node(name: str, number: int, outside: str) -> None:
    """A host's namespace that forwards, with an uplink to `outside`."""
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
    """What a host has on its uplink."""
    return f"198.51.{number}.2", f"2001:db8:{number}::2"


def outside_addresses(number: int) -> tuple[str, str]:
    """What the outside has on a host's uplink."""
    return f"198.51.{number}.1", f"2001:db8:{number}::1"


def source_seen(pod: str, outside: str, target: str) -> str:
    """The source address that `target` in `outside` sees on a datagram that a pod sends it; empty if none arrives."""
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
