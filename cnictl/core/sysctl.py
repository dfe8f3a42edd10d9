"""Read and set kernel settings (/proc/sys) in the calling thread's network namespace."""

from posix import O_CLOEXEC, O_RDONLY, O_WRONLY, close, write
from posix import open as open_descriptor
from posix import read as read_descriptor

FORWARDING = {4: "net/ipv4/ip_forward", 16: "net/ipv6/conf/all/forwarding"}
"""The kernel setting that turns on forwarding of a family, by the bytes in an address."""


def read(path: str) -> str:
    """Return a setting's value; empty if the kernel has no such setting. `path` is relative to /proc/sys."""
    try:
        descriptor = open_descriptor(f"/proc/sys/{path}", O_RDONLY | O_CLOEXEC)
    except (FileNotFoundError, NotADirectoryError):
        return ""
    try:
        return read_descriptor(descriptor, 4096).decode().strip()
    finally:
        close(descriptor)


def put(path: str, value: str) -> bool:
    """Set a setting; return False if the kernel has no such setting or refuses."""
    try:
        descriptor = open_descriptor(f"/proc/sys/{path}", O_WRONLY | O_CLOEXEC)
    except OSError:
        return False
    try:
        write(descriptor, value.encode())
    except OSError:
        return False
    finally:
        close(descriptor)
    return True
