"""A bridge that cnictl did not make: what ADD changes of it is noted first, and put back when its last pod has left.

One file a bridge under /run/cnictl/bridges, named after it and its index, so that one made anew has none. An ADD at
work holds it under a shared lock; it is read and removed by whoever gets an exclusive one. Format: docs/dev/formats.md.
"""

from fcntl import LOCK_EX, LOCK_NB, flock
from posix import O_APPEND, O_CLOEXEC, O_CREAT, O_RDWR, close, fstat, ftruncate, listdir, lseek, rmdir, unlink, write
from posix import open as open_descriptor

from cnictl.core import advertisements, durable, sysctl
from cnictl.core.locks import hold
from cnictl.core.netlink import rtnetlink
from cnictl.core.netlink.messages import Netlink
from cnictl.core.netlink.rtnetlink import Link, ifinfo
from cnictl.core.paths import BRIDGES_DIR

_LINK_LOCAL = b"\xfe\x80"


class Note:
    """What was changed of one adopted bridge, held open by the ADD that is at work."""

    __slots__ = ("_added", "_descriptor", "whole")

    def __init__(self, descriptor: int, whole: bool) -> None:
        self._descriptor = descriptor
        self._added: list[str] = []
        self.whole = whole
        """Whether all is noted; else only what is not the node file's business: addresses and the link's state are."""

    def setting(self, path: str, former: str, value: str) -> None:
        """Note a kernel setting that is about to be changed."""
        self._add(f"sysctl {path} {former} {value}")

    def message(self, undo: tuple[int, int, bytes]) -> None:
        """Note the message that undoes what is about to be changed."""
        kind, flags, body = undo
        self._add(f"message {kind} {flags} {body.hex()}")

    def down(self) -> None:
        """Note that the bridge was down."""
        self._add("down")

    def settings(self, path: str) -> list[tuple[str, str]]:
        """Return each noted change of a kernel setting, as its former and its new value."""
        return _settings(self._lines()).get(path, [])

    def withdraw(self) -> None:
        """Drop what this call noted: it has taken it back itself, and no other call is at work."""
        kept = [line for line in self._lines() if line not in self._added]
        ftruncate(self._descriptor, 0)
        write(self._descriptor, "".join(f"{line}\n" for line in kept).encode())
        self._added.clear()

    def release(self) -> None:
        """Let go of the lock."""
        if self._descriptor >= 0:
            close(self._descriptor)
            self._descriptor = -1

    def _add(self, line: str) -> None:
        if line not in self._lines():
            self._added.append(line)
            write(self._descriptor, f"{line}\n".encode())

    def _lines(self) -> list[str]:
        lseek(self._descriptor, 0, 0)
        return durable.contents_of(self._descriptor).decode().splitlines()


def take(name: str, index: int, whole: bool) -> Note:
    """Open a bridge's note, shared with other ADDs at work. Raises CniError 11, OSError."""
    path = f"{BRIDGES_DIR}/{name}@{index}"
    while True:
        try:
            descriptor = open_descriptor(path, O_RDWR | O_CREAT | O_APPEND | O_CLOEXEC, 0o600)
        except FileNotFoundError:
            durable.make_folder(BRIDGES_DIR, 0o700)
            continue
        hold(descriptor, path, shared=True)
        if fstat(descriptor).st_nlink:
            return Note(descriptor, whole)
        close(descriptor)  # its last pod has just left


def guard(netlink: Netlink, bridge: Link, note: Note) -> tuple[str, str] | None:
    """Set an adopted bridge's accept_ra as long as it has pods; return the setting and its former value, if changed.

    An uplink goes on accepting advertisements, any other bridge does not: a pod must not become the node's router.
    """
    path = advertisements.switch(bridge.name)
    now = sysctl.read(path)
    noted = note.settings(path)
    if noted and now != noted[-1][1]:
        return None  # somebody has decided otherwise since
    original = noted[0][0] if noted else now
    if original in ("", advertisements.NEVER):
        return None
    keeps = advertisements.is_uplink(bridge, rtnetlink.all_links(netlink), advertisements.learned(netlink))
    value = advertisements.wanted(original, keeps, sysctl.read(sysctl.FORWARDING[16]) == "1")
    if value == now:
        return None
    note.setting(path, now, value)
    return (path, now) if sysctl.put(path, value) else None


def settle(netlink: Netlink) -> None:
    """Put back what is noted of each adopted bridge that has no pod any more, unless an ADD is at work on it."""
    try:
        names = listdir(BRIDGES_DIR)
    except (FileNotFoundError, NotADirectoryError):
        return
    for name in names:
        _settle(netlink, name)
    try:
        rmdir(BRIDGES_DIR)
    except OSError:
        return  # a note is left, or another call is about to write one


def _settle(netlink: Netlink, file: str) -> None:
    path = f"{BRIDGES_DIR}/{file}"
    try:
        descriptor = open_descriptor(path, O_RDWR | O_CLOEXEC)
    except OSError:
        return  # another call was first
    try:
        flock(descriptor, LOCK_EX | LOCK_NB)
        if not fstat(descriptor).st_nlink:
            return
        name, _, index = file.rpartition("@")
        links = rtnetlink.all_links(netlink)
        bridge = next((link for link in links if (link.name, str(link.index)) == (name, index)), None)
        if bridge is not None:
            if any(link.master == bridge.index and advertisements.is_pod_port(link) for link in links):
                return
            _put_back(netlink, bridge, durable.contents_of(descriptor).decode().splitlines())
        unlink(path)
    except BlockingIOError:
        return  # an ADD at work counts on what it found
    finally:
        close(descriptor)


def _put_back(netlink: Netlink, bridge: Link, lines: list[str]) -> None:
    """Last change first; a kernel setting only where nobody has changed it since."""
    messages = [line.split()[1:] for line in reversed(lines) if line.startswith("message ")]
    netlink.refusals(*((int(kind), int(flags), bytes.fromhex(body)) for kind, flags, body in messages))
    for path, changes in reversed(_settings(lines).items()):
        if sysctl.read(path) == changes[-1][1]:
            sysctl.put(path, changes[0][0])
    if "down" in lines and not _is_used(netlink, bridge):
        netlink.refusals((rtnetlink.RTM_NEWLINK, 0, ifinfo(bridge.index, 0, rtnetlink.IFF_UP)))


def _settings(lines: list[str]) -> dict[str, list[tuple[str, str]]]:
    found: dict[str, list[tuple[str, str]]] = {}
    for line in lines:
        if line.startswith("sysctl "):
            _, path, former, value = line.split()
            found.setdefault(path, []).append((former, value))
    return found


def _is_used(netlink: Netlink, bridge: Link) -> bool:
    """Whether somebody has given it a port or an address since."""
    return any(link.master == bridge.index for link in rtnetlink.all_links(netlink)) or any(
        packed[:2] != _LINK_LOCAL for packed, _ in rtnetlink.addresses(netlink, bridge.index)
    )
