"""Attachment records: what an ADD is about to make and a DEL has to undo, one small file an attachment.

A record is written before the lease and removed last, so that a crash at any point leaves something that names what
to undo. The process at work holds its file under flock: whoever finds one free and incomplete finds a dead ADD.
Format: docs/dev/formats.md. A record without `host_veth` is of a lease that host-local wrote.
"""

import time
from fcntl import LOCK_EX, LOCK_NB, LOCK_SH, flock
from posix import F_OK, O_RDONLY, O_RDWR, W_OK, access, close, fstat, ftruncate, listdir, pwrite, stat, unlink
from posix import open as open_descriptor

from cnictl.core import durable, jsontext
from cnictl.core.cidr import is_address
from cnictl.core.errors import TRY_AGAIN, CniError
from cnictl.core.locks import hold
from cnictl.core.outside import is_network_name
from cnictl.core.paths import ATTACHMENTS_DIR, SPARE_ATTACHMENTS_DIR

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

VERSION = 1
CLAIM_MARK = ".claimed"
"""Name of the file beside a network's records that says up to when every lease of its store has one."""
_COMPLETE_AT = len('{"complete": ')
"""Byte offset of the one digit that changes in place, when ADD has made everything."""

_HOST_VETH = b'"host_veth": "'
_FIELDS = (
    "network", "container", "ifname", "addresses", "bridge", "host_veth", "mac", "netns", "netns_dev", "netns_ino",
    "pod_namespace", "pod_name", "pod_uid", "boot_id", "created", "data_dir", "runtime", "ipam", "mac_check", "vlan",
    "masqueraded", "isolated", "cni_args",
)  # fmt: skip


class Record:
    """One attachment: a container's interface on a network."""

    def __init__(self, network: str, container: str, ifname: str) -> None:
        self.network = network
        self.container = container
        self.ifname = ifname
        self.addresses: list[str] = []
        """Without prefix length."""
        self.bridge = ""
        self.host_veth = ""
        self.mac = ""
        """Of the pod's interface."""
        self.netns = ""
        self.netns_dev = 0
        self.netns_ino = 0
        self.pod_namespace = ""
        self.pod_name = ""
        self.pod_uid = ""
        self.boot_id = ""
        self.created = 0.0
        """Seconds since the epoch."""
        self.data_dir = ""
        """The lease store's parent folder."""
        self.runtime = ""
        """Name of the process that called ADD; empty: unknown."""
        self.ipam = ""
        """The plugin that gave the addresses; empty: they are leased here."""
        self.mac_check = False
        """Whether rules keep the pod to its own MAC."""
        self.vlan = 0
        """The pod's untagged VLAN; 0: none."""
        self.masqueraded: list[str] = []
        """Rule sets that go with the last attachment that names them: backend and subnet (`masquerade.scoped`)."""
        self.isolated = False
        """Whether rules keep other isolated pods from reaching this one by way of the node."""
        self.cni_args = ""
        """CNI_ARGS as the runtime gave it, for the DEL of the plugin in `ipam`; empty: none, or not kept."""
        self.complete = False
        """Whether ADD had made everything."""

    @property
    def path(self) -> str:
        """Where the record stands."""
        return record_path(self.network, self.container, self.ifname)

    @property
    def pod(self) -> str:
        """`NAMESPACE/NAME`, `NAME`, or empty: as the runtime named the pod."""
        return "/".join(part for part in (self.pod_namespace, self.pod_name) if part)

    def write(self, complete: bool = False) -> int:
        """Put the record on disk; returns its descriptor, locked, to be kept open while the work lasts.

        Not synced: after a power cut the attachment is gone, and of a record torn by it the name is enough to undo the
        rest; a sync is one wait for the disk in each ADD. Raises FileExistsError if the attachment has a record.
        """
        self.complete = complete
        folder = self.path.rpartition("/")[0]
        data = self._text()
        try:
            descriptor, name = durable.unnamed(folder, data, 0o600, sync=False)
        except FileNotFoundError:
            durable.make_folder(folder, 0o700)
            descriptor, name = durable.unnamed(folder, data, 0o600, sync=False)
        flock(descriptor, LOCK_EX | LOCK_NB)
        try:
            durable.give_name(descriptor, name, self.path)
        except OSError:
            close(descriptor)
            raise
        return descriptor

    def amend(self, descriptor: int) -> None:
        """Write what has become known since `write` over the record; `descriptor` is the one that it returned."""
        data = self._text()
        pwrite(descriptor, data, 0)
        ftruncate(descriptor, len(data))

    def _text(self) -> bytes:
        document: dict[str, object] = {"complete": int(self.complete), "version": VERSION}
        document.update((field, getattr(self, field)) for field in _FIELDS)
        return jsontext.dumps(document).encode() + b"\n"


def places() -> tuple[str, ...]:
    """Return the folders that may hold records, the one for new records first."""
    if access(ATTACHMENTS_DIR, W_OK) and not access(SPARE_ATTACHMENTS_DIR, F_OK):
        return (ATTACHMENTS_DIR,)
    from cnictl.core import record_places  # a node's first ADD, and one that can't write where records normally stand

    return record_places.places(ATTACHMENTS_DIR, SPARE_ATTACHMENTS_DIR)


def record_path(network: str, container: str, ifname: str) -> str:
    """Return where a record stands, or is to stand.

    A container id holds no `@` (spec 1.1.0 section 2), so the name reads back unambiguously.
    """
    first, *others = places()
    path = f"{first}/{network}/{container}@{ifname}"
    if others and not access(path, F_OK):
        for place in others:
            if access(f"{place}/{network}/{container}@{ifname}", F_OK):
                return f"{place}/{network}/{container}@{ifname}"
    return path


def claim_mark(network: str) -> str:
    """Return where the mark stands that every lease of a network has a record: beside the records."""
    return f"{places()[0]}/{network}/{CLAIM_MARK}"


def mark_complete(descriptor: int) -> None:
    """Note in a record that `write` opened that its attachment is whole."""
    pwrite(descriptor, b"1", _COMPLETE_AT)


def read(network: str, container: str, ifname: str) -> Record | None:
    """The attachment's record, or None. One that was torn by a power cut names at least itself."""
    try:
        raw = durable.contents(record_path(network, container, ifname))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except IsADirectoryError:
        raw = b""
    return _parsed(Record(network, container, ifname), raw)


def _parsed(record: Record, raw: bytes) -> Record | None:
    """The record with what its file says; None if that is another attachment's, as in a copy under another name."""
    try:
        found = jsontext.loads(raw)
    except jsontext.JsonError:
        try:
            record.created = stat(record.path).st_mtime
        except FileNotFoundError:
            return None
        return record
    for field in _FIELDS[:3]:
        said = found.get(field) if isinstance(found, dict) else None
        if isinstance(said, str) and said != getattr(record, field):
            from cnictl.core import odd

            odd.pass_over(record.path, f"is a copy: its {field} is another")
            return None
    for field in _FIELDS[3:]:
        value = found.get(field) if isinstance(found, dict) else None
        if type(value) is type(getattr(record, field)):
            setattr(record, field, value)
    record.addresses = [address for address in record.addresses if is_address(address)]
    record.masqueraded = [one for one in record.masqueraded if isinstance(one, str)]
    record.complete = isinstance(found, dict) and found.get("complete") == 1
    return record


def all_records(network: str) -> list[Record]:
    """Every record of a network, in no order; one that can't be read is passed over."""
    found = (_parsed(Record(network, *owner), raw) for owner, raw in _contents(network))
    return [record for record in found if record is not None]


def host_veths(network: str = "") -> set[str]:
    """The links that records name, of one network or of all: read without parsing what is written as this writes it."""
    found = set()
    for name in [network] if network else networks():
        for owner, raw in _contents(name):
            _, marked, rest = raw.partition(_HOST_VETH)
            if marked:
                found.add(rest.partition(b'"')[0].decode("utf-8", "replace"))
            else:
                record = _parsed(Record(name, *owner), raw)
                found.add(record.host_veth if record is not None else "")
    return found - {""}


def of_namespace(device: int, inode: int) -> "Iterator[Record]":
    """The records of attachments that were made in a network namespace, of all networks; no other file is parsed."""
    for network in networks():
        for owner, raw in _contents(network):
            if str(inode).encode() in raw:
                record = _parsed(Record(network, *owner), raw)
                if record is not None and (record.netns_dev, record.netns_ino) == (device, inode):
                    yield record


def _contents(network: str) -> "Iterator[tuple[tuple[str, str], bytes]]":
    """Each record's container and interface, and what is in its file; one that can't be read is passed over."""
    for owner, path in _paths(network).items():
        try:
            yield owner, durable.contents(path)
        except (FileNotFoundError, NotADirectoryError):
            continue
        except IsADirectoryError:
            yield owner, b""
        except OSError as error:
            from cnictl.core import odd

            odd.pass_over_error(path, error)


def every_record() -> "Iterator[Record]":
    """Every record of all networks."""
    for network in networks():
        yield from all_records(network)


def owners(network: str) -> set[tuple[str, str]]:
    """Container and interface of every record of a network, without opening any.

    What has no record's name is passed over, and so is a folder that can't be read.
    """
    return set(_paths(network))


def _paths(network: str) -> dict[tuple[str, str], str]:
    """Where the record of each container and interface stands; in the first place, where it is in two."""
    found: dict[tuple[str, str], str] = {}
    for folder in (f"{place}/{network}" for place in places()):
        for name in _names(folder):
            container, at, ifname = name.partition("@")
            if at and not name.startswith(".") and name.isprintable():
                found.setdefault((container, ifname), f"{folder}/{name}")
            elif name != CLAIM_MARK and not name.startswith(durable.TEMPORARY):
                from cnictl.core import odd

                odd.pass_over(f"{folder}/{name}", "is no attachment's record")
    return found


def networks() -> list[str]:
    """Networks that have records; what is no network's folder is passed over."""
    found = set()
    for place in places():
        for name in _names(place):
            path = f"{place}/{name}"
            try:
                fault = "" if is_network_name(name) and durable.is_folder(path) else "is no network's folder"
            except FileNotFoundError:
                continue
            except OSError as error:
                fault = (error.strerror or str(error)).lower()
            if not fault:
                found.add(name)
            else:
                from cnictl.core import odd

                odd.pass_over(path, fault)
    return sorted(found)


def _names(folder: str) -> list[str]:
    try:
        return listdir(folder)
    except FileNotFoundError:
        return []
    except OSError as error:
        from cnictl.core import odd

        if isinstance(error, NotADirectoryError):
            odd.pass_over(folder, "is a file, not a folder")
        else:
            odd.pass_over_error(folder, error)
        return []


def in_flight(record: Record) -> bool:
    """Whether a process is at work on the attachment right now."""
    try:
        descriptor = open_descriptor(record.path, O_RDONLY | durable.AT_ONCE)
    except FileNotFoundError:
        return False
    try:
        flock(descriptor, LOCK_SH | LOCK_NB)  # shared: two that only look must not take each other for an ADD
    except BlockingIOError:
        return True
    finally:
        close(descriptor)
    return False


def seize(network: str, container: str, ifname: str, wait: float, shared: bool = False) -> int:
    """Lock an attachment's record for undoing it; -1 if there is none (any more).

    With `shared` only so that nobody else begins to work on it: for a caller that looks. Raises CniError 11 if another
    process is at work on it past `wait` seconds.
    """
    path = record_path(network, container, ifname)
    deadline = time.monotonic() + wait
    while True:
        try:
            descriptor = open_descriptor(path, (O_RDONLY if shared else O_RDWR) | durable.AT_ONCE)
        except (FileNotFoundError, NotADirectoryError):
            return -1
        try:
            hold(descriptor, path, shared, wait=max(0.0, deadline - time.monotonic()))
            if fstat(descriptor).st_nlink:
                return descriptor
        except CniError:
            close(descriptor)
            raise CniError(
                TRY_AGAIN,
                f"another call is at work on {container} {ifname}",
                "it ends or is killed by the runtime",
            ) from None
        close(descriptor)  # whoever held it removed it: look whether a new one stands there


def remove(network: str, container: str, ifname: str) -> bool:
    """Remove the record; False if there was none."""
    try:
        unlink(record_path(network, container, ifname))
    except FileNotFoundError:
        return False
    return True
