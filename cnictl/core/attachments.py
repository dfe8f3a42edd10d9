"""Attachment records: what an ADD is about to make and a DEL has to undo, one small file for each attachment.

A record is written before the lease and removed last, so that after a crash at any point it says what to undo. The call
that works on an attachment holds the record's file under flock: an incomplete record that nobody holds is left from an
ADD that died. Format: docs/dev/formats.md. A record without `host_veth` belongs to a lease that host-local made.
"""

import time
from fcntl import LOCK_EX, LOCK_NB, LOCK_SH, flock
from posix import F_OK, O_RDONLY, O_RDWR, W_OK, access, close, fstat, ftruncate, listdir, pwrite, stat, unlink
from posix import open as open_descriptor

from cnictl.core import durable, jsontext
from cnictl.core.cidr import is_address
from cnictl.core.errors import TRY_AGAIN, CniError
from cnictl.core.locks import hold
from cnictl.core.paths import ATTACHMENTS_DIR, SPARE_ATTACHMENTS_DIR
from cnictl.core.untrusted_text import is_network_name

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

VERSION = 1
CLAIM_MARK = ".claimed"
"""Name of the file in a network's record folder that shows up to when every lease of the store has a record."""
_COMPLETE_AT = len('{"complete": ')
"""Byte offset of the digit that ADD changes in place when the attachment is complete."""

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
        """The addresses that are leased here or given by an IPAM plugin, without prefix length."""
        self.bridge = ""
        self.host_veth = ""
        self.mac = ""
        """MAC of the pod's interface."""
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
        """The folder that holds the network's lease store."""
        self.runtime = ""
        """Name of the process that called ADD; empty if unknown."""
        self.ipam = ""
        """The IPAM plugin that gave the addresses; empty if they are leased here."""
        self.mac_check = False
        """Whether rules drop frames that the pod sends from a MAC other than its own."""
        self.vlan = 0
        """The pod's untagged VLAN; 0: none."""
        self.masqueraded: list[str] = []
        """Backend and subnet of each rule set that is removed with its last attachment (`masquerade.scoped`)."""
        self.isolated = False
        """Whether rules keep other isolated pods from reaching this one through the node."""
        self.cni_args = ""
        """CNI_ARGS as the runtime gave it, for the DEL of the plugin in `ipam`; empty if none, or too long to keep."""
        self.complete = False
        """Whether the attachment is complete."""

    @property
    def path(self) -> str:
        """Path of the record's file."""
        return record_path(self.network, self.container, self.ifname)

    @property
    def pod(self) -> str:
        """The pod's name as the runtime gave it: `NAMESPACE/NAME`, `NAME` or empty."""
        return "/".join(part for part in (self.pod_namespace, self.pod_name) if part)

    def write(self, complete: bool = False) -> int:
        """Write the record; return its locked descriptor, to be kept open as long as the call works on the attachment.

        It is not synced, which would make each ADD wait for the disk: a power cut ends the attachment anyway, and the
        name of a torn record is enough to undo the rest. Raises FileExistsError if the attachment has a record.
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
        """Overwrite the record with what has become known since `write`, which returned `descriptor`."""
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
    from cnictl.core import record_places  # only on a node's first ADD, or if the usual folder isn't writable

    return record_places.places(ATTACHMENTS_DIR, SPARE_ATTACHMENTS_DIR)


def record_path(network: str, container: str, ifname: str) -> str:
    """Return the path of an attachment's record, whether it is there or not.

    A container id contains no `@` (spec 1.1.0 section 2), so container and interface can be read back from the name.
    """
    first, *others = places()
    path = f"{first}/{network}/{container}@{ifname}"
    if others and not access(path, F_OK):
        for place in others:
            if access(f"{place}/{network}/{container}@{ifname}", F_OK):
                return f"{place}/{network}/{container}@{ifname}"
    return path


def claim_mark(network: str) -> str:
    """Return the path of the mark that every lease of a network has a record."""
    return f"{places()[0]}/{network}/{CLAIM_MARK}"


def mark_complete(descriptor: int) -> None:
    """Mark the record that `write` opened as complete."""
    pwrite(descriptor, b"1", _COMPLETE_AT)


def read(network: str, container: str, ifname: str) -> Record | None:
    """Return the attachment's record, or None. A record torn by a power cut has at least the names."""
    try:
        raw = durable.contents(record_path(network, container, ifname))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except IsADirectoryError:
        raw = b""
    return _parsed(Record(network, container, ifname), raw)


def _parsed(record: Record, raw: bytes) -> Record | None:
    """Return the record filled in from its file; None if the file is a copy of another attachment's record."""
    try:
        document = jsontext.loads(raw)
    except jsontext.JsonError:
        try:
            record.created = stat(record.path).st_mtime
        except FileNotFoundError:
            return None
        return record
    for field in _FIELDS[:3]:
        written = document.get(field) if isinstance(document, dict) else None
        if isinstance(written, str) and written != getattr(record, field):
            from cnictl.core import skipped_entries

            skipped_entries.skip(record.path, f"is a copy of another attachment's record: its {field} differs")
            return None
    for field in _FIELDS[3:]:
        value = document.get(field) if isinstance(document, dict) else None
        if type(value) is type(getattr(record, field)):
            setattr(record, field, value)
    record.addresses = [address for address in record.addresses if is_address(address)]
    record.masqueraded = [rule_set for rule_set in record.masqueraded if isinstance(rule_set, str)]
    record.complete = isinstance(document, dict) and document.get("complete") == 1
    return record


def all_records(network: str) -> list[Record]:
    """Return every record of a network, in any order, except those that can't be read."""
    records = (_parsed(Record(network, *owner), raw) for owner, raw in _contents(network))
    return [record for record in records if record is not None]


def host_veths(network: str = "") -> set[str]:
    """Return the host veths that records name, of one network or of all, mostly without parsing the records."""
    links = set()
    for name in [network] if network else networks():
        for owner, raw in _contents(name):
            _, has_link, rest = raw.partition(_HOST_VETH)
            if has_link:
                links.add(rest.partition(b'"')[0].decode("utf-8", "replace"))
            else:
                record = _parsed(Record(name, *owner), raw)
                links.add(record.host_veth if record is not None else "")
    return links - {""}


def of_namespace(device: int, inode: int) -> "Iterator[Record]":
    """Yield the records of all networks whose attachment is in a network namespace; no other file is parsed."""
    for network in networks():
        for owner, raw in _contents(network):
            if str(inode).encode() in raw:
                record = _parsed(Record(network, *owner), raw)
                if record is not None and (record.netns_dev, record.netns_ino) == (device, inode):
                    yield record


def _contents(network: str) -> "Iterator[tuple[tuple[str, str], bytes]]":
    """Yield the container, the interface and the file's content of each record that can be read."""
    for owner, path in _paths(network).items():
        try:
            yield owner, durable.contents(path)
        except (FileNotFoundError, NotADirectoryError):
            continue
        except IsADirectoryError:
            yield owner, b""
        except OSError as error:
            from cnictl.core import skipped_entries

            skipped_entries.skip_unreadable(path, error)


def every_record() -> "Iterator[Record]":
    """Yield the records of all networks."""
    for network in networks():
        yield from all_records(network)


def owners(network: str) -> set[tuple[str, str]]:
    """Return container and interface of every record of a network, without opening any.

    Files that are not named like a record are skipped, and so is a folder that can't be read.
    """
    return set(_paths(network))


def _paths(network: str) -> dict[tuple[str, str], str]:
    """Return the path of each container's and interface's record; the first one if two folders have one."""
    paths: dict[tuple[str, str], str] = {}
    for folder in (f"{place}/{network}" for place in places()):
        for name in _names(folder):
            container, at, ifname = name.partition("@")
            if at and not name.startswith(".") and name.isprintable():
                paths.setdefault((container, ifname), f"{folder}/{name}")
            elif name != CLAIM_MARK and not name.startswith(durable.TEMPORARY):
                from cnictl.core import skipped_entries

                skipped_entries.skip(f"{folder}/{name}", "is not an attachment's record")
    return paths


def networks() -> list[str]:
    """Return the networks that have records; skip entries that are not a network's folder."""
    names = set()
    for place in places():
        for name in _names(place):
            path = f"{place}/{name}"
            try:
                fault = "" if is_network_name(name) and durable.is_folder(path) else "is not a network's folder"
            except FileNotFoundError:
                continue
            except OSError as error:
                fault = (error.strerror or str(error)).lower()
            if not fault:
                names.add(name)
            else:
                from cnictl.core import skipped_entries

                skipped_entries.skip(path, fault)
    return sorted(names)


def _names(folder: str) -> list[str]:
    try:
        return listdir(folder)
    except FileNotFoundError:
        return []
    except OSError as error:
        from cnictl.core import skipped_entries

        if isinstance(error, NotADirectoryError):
            skipped_entries.skip(folder, "is a file, not a folder")
        else:
            skipped_entries.skip_unreadable(folder, error)
        return []


def in_flight(record: Record) -> bool:
    """Return whether a call is working on the attachment right now."""
    try:
        descriptor = open_descriptor(record.path, O_RDONLY | durable.AT_ONCE)
    except FileNotFoundError:
        return False
    try:
        flock(descriptor, LOCK_SH | LOCK_NB)  # shared, so that two readers don't take each other for an ADD
    except BlockingIOError:
        return True
    finally:
        close(descriptor)
    return False


def seize(network: str, container: str, ifname: str, wait: float, shared: bool = False) -> int:
    """Lock an attachment's record to undo the attachment; return its descriptor, or -1 if there is no record.

    A caller that only reads asks for a `shared` lock, which keeps others from starting to change the attachment.
    Raises CniError 11 if another call still holds the record after `wait` seconds.
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
                f"another call is working on {container} {ifname}",
                "wait until it ends, or until the runtime kills it",
            ) from None
        close(descriptor)  # its holder removed it: look for a new one


def remove(network: str, container: str, ifname: str) -> bool:
    """Remove the record; return False if there was none."""
    try:
        unlink(record_path(network, container, ifname))
    except FileNotFoundError:
        return False
    return True
