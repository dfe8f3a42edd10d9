"""The lease store, in host-local's layout: either plugin can take over from the other in place.

`DATA_DIR/NETWORK/ADDRESS` holds `CONTAINERID\\r\\nIFNAME`; `last_reserved_ip.N` holds the address that range set N
gave last; `lock` is held under flock(2). Source: containernetworking/plugins, plugins/ipam/host-local/backend/disk.
"""

from posix import F_OK, O_CREAT, O_RDWR, access, close, ftruncate, link, listdir, pwrite, stat, unlink
from posix import open as open_descriptor

from cnictl.core import attachments, durable
from cnictl.core.cidr import AddressError, format_address, parse_address
from cnictl.core.errors import TRY_AGAIN, CniError
from cnictl.core.leases.lease import Duplicate, Exhausted, Lease, Taken, parse_owner
from cnictl.core.leases.pool import distribute
from cnictl.core.locks import LOCK_WAIT, Locked
from cnictl.core.paths import NETWORKS_DIR

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator, Sequence

    from cnictl.core.leases.pool import Range, RangeSet


class Store:
    """The leases of one network."""

    def __init__(self, network: str, data_dir: str = NETWORKS_DIR) -> None:
        self.network = network
        self.data_dir = data_dir
        self.folder = f"{data_dir}/{network}"
        self._shared: bool | None = None

    @property
    def shared(self) -> bool:
        """Whether other nodes may lease from this store, so that a lease without a record may be theirs."""
        if self._shared is None:
            from cnictl.core.leases import shared_store

            self._shared = shared_store.may_be_shared(self.data_dir)
        return self._shared

    def locked(self, wait: float = LOCK_WAIT) -> Locked:
        """Return the store's lock, which host-local takes too. Raises CniError 11 past `wait` seconds."""
        return Locked(f"{self.folder}/lock", wait=wait)

    def allocate(
        self,
        sets: "Sequence[RangeSet]",
        container: str,
        ifname: str,
        before: "Callable[[list[str]], None]",
        wanted: "Iterable[bytes]" = (),
    ) -> "list[tuple[bytes, Range]]":
        """Lease one address of each range set to a container's interface: the one in `wanted`, or the next free one.

        Either all are leased or none. `before` gets the chosen addresses before their leases appear, and writes the
        record. Raises Exhausted (100), Duplicate, Taken or CniError 101 (a wanted address is in no set), CniError 11
        (store locked), OSError.
        """
        wanted_by_set = distribute(sets, wanted)
        durable.make_folder(self.folder)
        owner = f"{container}\r\n{ifname}".encode()
        descriptor, name = durable.unnamed(
            self.folder, owner, 0o600
        )  # synced before the lock, so that nobody waits for the disk
        try:
            with self.locked():
                claimed = self._claimed()
                if not claimed and not self.shared:
                    self._claim()
                    claimed = True
                    record = attachments.read(self.network, container, ifname)
                    if record is not None:
                        raise Duplicate(Lease("".join(record.addresses[:1]), container, ifname, record.created))
                names = frozenset(listdir(self.folder))
                chosen = [
                    self._check_wanted(packed, names) if packed else self._next(sets[number], number, names)
                    for number, packed in enumerate(wanted_by_set)
                ]
                addresses = [format_address(packed) for packed in chosen]
                before(addresses)
                self._give(descriptor, name, addresses)
                for number, address in enumerate(addresses):
                    _overwrite(f"{self.folder}/last_reserved_ip.{number}", address)  # as host-local does
                if claimed:
                    self._mark_claimed(stat(self.folder).st_mtime_ns)
                return [(packed, ranges.range_of(packed)) for packed, ranges in zip(chosen, sets, strict=True)]
        finally:
            durable.discard(descriptor, name)

    def release(self, address: str, container: str, ifname: str, wait: float = LOCK_WAIT) -> bool:
        """Free an address if this owner holds it; else return False: a late DEL must not free another's lease."""
        if not self._exists():
            return False
        with self.locked(wait):
            lease = self.read(address)
            if lease is None or (lease.container, lease.ifname) != (container, ifname):
                return False
            self._unlink([address])
            return True

    def release_all(self, addresses: "Iterable[str]", container: str, ifname: str) -> list[str]:
        """Free the addresses of an attachment's record and return the freed ones, torn leases among them.

        An address that another owner now holds stays leased.
        """
        if not self._exists():
            return []
        with self.locked():
            held = [lease for lease in map(self.read, addresses) if lease is not None]
            owners = ((container, ifname), ("", ""))
            freed = [lease.address for lease in held if (lease.container, lease.ifname) in owners]
            if freed:
                self._unlink(freed)
            return freed

    def release_torn(self, address: str) -> bool:
        """Free an address whose lease names no owner, as a power cut leaves it; return whether it was freed."""
        if not self._exists():
            return False
        with self.locked():
            lease = self.read(address)
            if lease is None or lease.container:
                return False
            self._unlink([address])
            return True

    def clear_unfinished(self) -> None:
        """Remove the temporary files of killed ADDs, which exist if the file system lacks O_TMPFILE.

        In a shared store they may belong to another node's running ADD: not every file system shows that node's lock.
        """
        if not self.shared:
            durable.clear_temporary(self.folder)
        for place in attachments.places():
            durable.clear_temporary(f"{place}/{self.network}")

    def ensure_claimed(self, owner: "tuple[str, str] | None" = None) -> None:
        """Write a record for every lease that has none, unless nothing has changed since the last time.

        In a shared store, only the leases of `owner` (container and interface) get one: this node's runtime named it.
        """
        if not self._exists():
            return
        if self.shared:
            if owner is not None:
                with self.locked():
                    self._claim(owner)
            return
        with self.locked():
            if not self._claimed():
                modified = stat(self.folder).st_mtime_ns
                self._claim()
                self._mark_claimed(modified)

    def read(self, address: str) -> Lease | None:
        """Return the lease of an address, or None."""
        path = f"{self.folder}/{address}"
        try:
            raw = durable.contents(path)
            modified = stat(path).st_mtime
        except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
            return None
        return Lease(address, *parse_owner(raw), modified)

    def all(self) -> "Iterator[Lease]":
        """Yield every lease, sorted by the address as text, without those that can't be read."""
        for name in sorted(self._addresses()):
            try:
                lease = self.read(name)
            except OSError as error:
                from cnictl.core import skipped_entries

                skipped_entries.skip_unreadable(f"{self.folder}/{name}", error)
                continue
            if lease is not None:
                yield lease

    def count(self, among: "RangeSet | None" = None) -> int:
        """Return the number of leased addresses, in all or of one range set."""
        return sum(among is None or among.holds(_packed(name)) for name in self._addresses())

    def _exists(self) -> bool:
        try:
            stat(self.folder)
        except (FileNotFoundError, NotADirectoryError):
            return False
        return True

    def _addresses(self) -> list[str]:
        try:
            names = listdir(self.folder)
        except (FileNotFoundError, NotADirectoryError):
            return []
        return [name for name in names if _packed(name)]

    def _claimed(self) -> bool:
        """Return whether every lease has an attachment record.

        The mark says so if it contains the store folder's modification time, which host-local, an operator or a killed
        call would have changed. Before Linux 6.13 two changes within one clock tick leave the same time; then the
        address that was given last shows a host-local ADD, because its lease has no record.
        """
        try:
            marked = int(durable.contents(attachments.claim_mark(self.network)))
        except (FileNotFoundError, NotADirectoryError, ValueError):
            return False
        if marked != stat(self.folder).st_mtime_ns:
            return False
        number = 0
        while last := self._last(number):
            lease = self.read(format_address(last))
            if lease is not None and lease.container:
                record = attachments.record_path(self.network, lease.container, lease.ifname)
                if not access(record, F_OK):
                    return False
            number += 1
        return True

    def _mark_claimed(self, modified: int) -> None:
        """Write the mark: every lease has a record as of this modification time (ns) of the store's folder."""
        try:
            _overwrite(attachments.claim_mark(self.network), str(modified))
        except FileNotFoundError:
            return  # no lease needed a record, so there is no folder for records yet

    def _next(self, among: "RangeSet", number: int, names: "Collection[str]") -> bytes:
        """Return the first free address after the one that the range set gave last."""
        for packed in among.in_turn(self._last(number)):
            if format_address(packed) not in names:
                return packed
        raise Exhausted(among, self.network)

    def _check_wanted(self, wanted: bytes, names: "Collection[str]") -> bytes:
        address = format_address(wanted)
        if address in names:
            raise Taken(address, self.read(address))
        return wanted

    def _give(self, descriptor: int, name: str, addresses: list[str]) -> None:
        """Make the lease appear under each address, or under none if one fails; all are hard links to one file."""
        first = f"{self.folder}/{addresses[0]}"
        named: list[str] = []
        try:
            durable.give_name(descriptor, name, first)
            named.append(first)
            for address in addresses[1:]:
                link(first, f"{self.folder}/{address}")
                named.append(f"{self.folder}/{address}")
        except OSError as error:
            for path in named:
                unlink(path)
            if isinstance(error, FileExistsError):
                taken = addresses[len(named)]
                raise CniError(
                    TRY_AGAIN,
                    f"{taken} was leased by another process at the same moment",
                    f"{self.folder}: check that every node that uses it mounts it with locks",
                ) from None
            raise

    def _last(self, number: int) -> bytes:
        """Return the address that a range set gave last; empty if the file is missing or torn, as it is only a hint."""
        try:
            return parse_address(durable.contents(f"{self.folder}/last_reserved_ip.{number}").decode().strip())
        except (OSError, AddressError, UnicodeDecodeError):
            return b""

    def _unlink(self, addresses: list[str]) -> None:
        claimed = self._claimed()
        for address in addresses:
            unlink(f"{self.folder}/{address}")
        if claimed:
            self._mark_claimed(stat(self.folder).st_mtime_ns)

    def _claim(self, only: "tuple[str, str] | None" = None) -> None:
        """Write a record for each owner without one, or `only` for that one, so that DEL finds the leases by name."""
        from cnictl.core.liveness import boot_id

        recorded, boot = attachments.owners(self.network), boot_id()
        owners: dict[tuple[str, str], list[Lease]] = {}
        for lease in self.all():
            owner = (lease.container, lease.ifname)
            if lease.container and owner not in recorded and only in (None, owner):
                owners.setdefault(owner, []).append(lease)
        for (container, ifname), leases in owners.items():
            record = attachments.Record(self.network, container, ifname)
            record.addresses = [lease.address for lease in leases]
            record.created, record.data_dir = leases[0].modified, self.data_dir
            record.boot_id = boot  # shows after a boot that the lease is older, whatever the clock says
            try:
                close(record.write(complete=True))
            except FileExistsError:
                continue


def _packed(name: str) -> bytes:
    """Return the address that a file is named after, or empty bytes."""
    try:
        return parse_address(name)
    except AddressError:
        return b""


def _overwrite(path: str, text: str) -> None:
    """Write a small file in place: it may be torn, but no temporary name may appear in a store."""
    descriptor = open_descriptor(path, O_RDWR | O_CREAT | durable.AT_ONCE, 0o600)
    try:
        durable.ensure_regular(descriptor, path)
        written = pwrite(descriptor, text.encode(), 0)
        ftruncate(descriptor, written)
    finally:
        close(descriptor)
