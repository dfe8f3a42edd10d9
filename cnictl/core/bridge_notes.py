"""Notes on adopted bridges: what ADD changes of a bridge that cnictl did not make, and how to put it back.

ADD writes each change to the note before it makes it; when the bridge's last pod has left, the changes are reverted.
There is one file for each bridge under /run/cnictl/bridges, named after the bridge and its link index, so that a bridge
that was removed and created again has none. An ADD holds its bridge's note under a shared lock; the note is read and
removed under an exclusive lock. Format: docs/dev/formats.md.
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
    """The note on one adopted bridge, held open by the ADD that uses it."""

    __slots__ = ("_added", "_descriptor", "whole")

    def __init__(self, descriptor: int, whole: bool) -> None:
        self._descriptor = descriptor
        self._added: list[str] = []
        self.whole = whole
        """Whether to note every change. If not, the node file decides about addresses and the link's state."""

    def setting(self, path: str, old: str, value: str) -> None:
        """Note a kernel setting that is about to be changed."""
        self._add(f"sysctl {path} {old} {value}")

    def message(self, undo: tuple[int, int, bytes]) -> None:
        """Note the message that undoes what is about to be changed."""
        kind, flags, body = undo
        self._add(f"message {kind} {flags} {body.hex()}")

    def down(self) -> None:
        """Note that the bridge was down."""
        self._add("down")

    def settings(self, path: str) -> list[tuple[str, str]]:
        """Return the noted changes of a kernel setting, each as its old and its new value."""
        return _settings(self._lines()).get(path, [])

    def withdraw(self) -> None:
        """Drop the lines that this call added: it has reverted those changes, and no other call is running."""
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
    """Open a bridge's note under a shared lock. Raises CniError 11, OSError."""
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
        close(descriptor)  # the file was removed meanwhile: the last pod has just left


def guard(netlink: Netlink, bridge: Link, note: Note) -> tuple[str, str] | None:
    """Set accept_ra of an adopted bridge that gets a pod; return the setting and its old value if it was changed.

    An uplink keeps accepting advertisements. Any other bridge stops: a pod must not become the node's router.
    """
    path = advertisements.switch(bridge.name)
    current = sysctl.read(path)
    changes = note.settings(path)
    if changes and current != changes[-1][1]:
        return None  # somebody else has changed it since
    original = changes[0][0] if changes else current
    if original in ("", advertisements.NEVER):
        return None
    keeps = advertisements.is_uplink(bridge, rtnetlink.all_links(netlink), advertisements.learned(netlink))
    value = advertisements.wanted(original, keeps, sysctl.read(sysctl.FORWARDING[16]) == "1")
    if value == current:
        return None
    note.setting(path, current, value)
    return (path, current) if sysctl.put(path, value) else None


def settle(netlink: Netlink) -> None:
    """Revert the noted changes of each adopted bridge that has no pod left, unless an ADD is using it."""
    try:
        names = listdir(BRIDGES_DIR)
    except (FileNotFoundError, NotADirectoryError):
        return
    for name in names:
        _settle(netlink, name)
    try:
        rmdir(BRIDGES_DIR)
    except OSError:
        return  # a note is left, or another call has just written one


def _settle(netlink: Netlink, file: str) -> None:
    path = f"{BRIDGES_DIR}/{file}"
    try:
        descriptor = open_descriptor(path, O_RDWR | O_CLOEXEC)
    except OSError:
        return  # another call removed it first
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
        return  # an ADD relies on the settings as they are
    finally:
        close(descriptor)


def _put_back(netlink: Netlink, bridge: Link, lines: list[str]) -> None:
    """Revert the changes, last one first; a kernel setting only if nobody else has changed it since."""
    messages = [line.split()[1:] for line in reversed(lines) if line.startswith("message ")]
    netlink.refusals(*((int(kind), int(flags), bytes.fromhex(body)) for kind, flags, body in messages))
    for path, changes in reversed(_settings(lines).items()):
        if sysctl.read(path) == changes[-1][1]:
            sysctl.put(path, changes[0][0])
    if "down" in lines and not _is_used(netlink, bridge):
        netlink.refusals((rtnetlink.RTM_NEWLINK, 0, ifinfo(bridge.index, 0, rtnetlink.IFF_UP)))


def _settings(lines: list[str]) -> dict[str, list[tuple[str, str]]]:
    changes: dict[str, list[tuple[str, str]]] = {}
    for line in lines:
        if line.startswith("sysctl "):
            _, path, old, value = line.split()
            changes.setdefault(path, []).append((old, value))
    return changes


def _is_used(netlink: Netlink, bridge: Link) -> bool:
    """Return whether somebody has given the bridge a port or an address since."""
    return any(link.master == bridge.index for link in rtnetlink.all_links(netlink)) or any(
        packed[:2] != _LINK_LOCAL for packed, _ in rtnetlink.addresses(netlink, bridge.index)
    )
