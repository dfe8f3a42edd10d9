"""Where the bench runs: network and mount namespaces of its own, so that the machine it runs on is left alone."""

import ctypes
import os
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
        return
    command = ["unshare", "--net", "--mount", "--propagation", "private"]
    if os.geteuid():
        command += ["--user", "--map-root-user"]
    command += ["--", sys.executable, "-m", module, *sys.argv[1:]]
    os.execvpe(command[0], command, {**os.environ, _INSIDE: "1"})


def cover(path: str, source: str = "") -> None:
    """Lay a fresh tmpfs over a folder, or `source` if one is named."""
    command = ["mount", "--bind", source, path] if source else ["mount", "-t", "tmpfs", "tmpfs", path]
    subprocess.run(command, check=True)


def file_system(path: str) -> str:
    """Type of the file system a path is on."""
    return subprocess.run(
        ["stat", "--file-system", "--format=%T", path], check=True, capture_output=True, text=True
    ).stdout.strip()


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


def make_node(name: str, number: int, outside: str) -> str:
    """A host's namespace that forwards, with an uplink to `outside`. Returns the address to reach there."""
    ip("netns", "add", name)
    ip("link", "add", f"up{number}", "netns", name, "type", "veth", "peer", f"up{number}", "netns", outside)
    ip("-n", name, "link", "set", "lo", "up")
    ip("-n", name, "address", "add", f"198.51.{number}.2/24", "dev", f"up{number}")
    ip("-n", name, "link", "set", f"up{number}", "up")
    ip("-n", outside, "address", "add", f"198.51.{number}.1/24", "dev", f"up{number}")
    ip("-n", outside, "link", "set", f"up{number}", "up")
    with within(name), open("/proc/sys/net/ipv4/ip_forward", "w", encoding="ascii") as sysctl:
        sysctl.write("1")
    return f"198.51.{number}.1"


def source_seen(pod: str, outside: str, target: str) -> str:
    """The source address that `target` in `outside` sees on a datagram that a pod sends it."""
    with within(outside):
        receiver = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    with within(pod):
        sender = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    with receiver, sender:
        receiver.settimeout(5)
        receiver.bind((target, 0))
        sender.sendto(b"who am I", receiver.getsockname())
        _, (source, _) = receiver.recvfrom(64)
    return str(source)
