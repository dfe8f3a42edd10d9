"""A lease as its file describes it, and the errors of an ADD that gets none."""

from errno import ELOOP, ENOENT
from posix import O_CLOEXEC, O_RDONLY, close, geteuid, listdir
from posix import open as open_descriptor

from cnictl.core.cidr import is_address
from cnictl.core.errors import ADDRESS_CONFLICT, ADDRESS_EXHAUSTED, CniError
from cnictl.core.paths import NETWORKS_DIR
from cnictl.core.untrusted_text import is_network_name

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cnictl.core.leases.pool import RangeSet

_OWNER_MAX = 250
"""Bytes of container and interface: a record's file is named after both, and its name has at most 255."""


class Lease:
    """A leased address and its owner; container and interface are empty if the file is torn."""

    __slots__ = ("address", "container", "ifname", "modified")

    def __init__(self, address: str, container: str, ifname: str, modified: float) -> None:
        self.address = address
        self.container = container
        self.ifname = ifname
        self.modified = modified
        """Seconds since the epoch."""


class Exhausted(CniError):
    """Every address of a range set is leased."""

    def __init__(self, among: "RangeSet", network: str) -> None:
        super().__init__(
            ADDRESS_EXHAUSTED,
            f"no address left in {among} of network {network}: all {among.size} are leased",
            f"`cnictl ipam list --name {network}` shows who holds them, `cnictl ipam gc` frees the stale ones",
        )


class Taken(CniError):
    """A requested address is already leased."""

    def __init__(self, address: str, lease: Lease | None) -> None:
        holder = f"{lease.container} {lease.ifname}" if lease and lease.container else "an unknown owner (torn lease)"
        super().__init__(ADDRESS_CONFLICT, f"requested address {address} is already leased to {holder}")


class Duplicate(CniError):
    """The container's interface already holds an address, by a lease that had no record."""

    def __init__(self, lease: Lease) -> None:
        super().__init__(
            ADDRESS_CONFLICT,
            f"{lease.container} {lease.ifname} already holds {lease.address}",
            "the runtime must DEL this attachment before it can ADD it again",
        )


def parse_owner(raw: bytes) -> tuple[str, str]:
    """Return the container and interface in a lease's file; both are empty if no runtime can have written it."""
    container, _, ifname = raw[:_OWNER_MAX].decode("utf-8", "replace").partition("\n")
    container, ifname = container.strip(), ifname.strip()
    both = container + ifname
    if len(raw) > _OWNER_MAX or container[:1] == "." or not both.isprintable() or "/" in both or "\ufffd" in both:
        return "", ""
    return container, ifname


def folder_networks(data_dir: str = NETWORKS_DIR) -> list[str]:
    """Return the networks that have a lease store; what is not one is skipped."""
    from cnictl.core import skipped_entries

    try:
        names = listdir(data_dir)
    except FileNotFoundError:
        return []
    except OSError as error:
        if isinstance(error, PermissionError) and geteuid():
            raise  # an ordinary user: the caller says who may read it
        skipped_entries.skip_unreadable(data_dir, error)
        return []
    networks = []
    for name in names:
        path = f"{data_dir}/{name}"
        try:
            entries = _names_in(path)
        except NotADirectoryError:
            skipped_entries.skip(path, "is a file, not a network's folder")
            continue
        except OSError as error:
            # a broken link or a link loop is not a folder either
            skipped_entries.skip(path, (error.strerror or str(error)).lower(), error.errno not in (ENOENT, ELOOP))
            continue
        leased = any(map(is_address, entries))
        if not is_network_name(name):
            skipped_entries.skip(
                path, "is not named like a network" + (", but contains leases" if leased else ""), matters=leased
            )
        elif (
            entries
            and not leased
            and not any(file == "lock" or file.startswith("last_reserved_ip.") for file in entries)
        ):
            skipped_entries.skip(path, "does not look like a network's lease folder")
        else:
            networks.append(name)
    return sorted(networks)


def _names_in(path: str) -> list[str]:
    """Return the names in a folder. Raises OSError if it is not a folder, or can't be read."""
    descriptor = open_descriptor(f"{path}/.", O_RDONLY | O_CLOEXEC)
    try:
        return listdir(descriptor)
    finally:
        close(descriptor)
