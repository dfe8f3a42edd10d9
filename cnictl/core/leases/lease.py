"""One lease as its file says it, and what keeps an ADD from getting one."""

from errno import ELOOP, ENOENT
from posix import O_CLOEXEC, O_RDONLY, close, geteuid, listdir
from posix import open as open_descriptor

from cnictl.core.cidr import AddressError, parse_address
from cnictl.core.errors import ADDRESS_CONFLICT, ADDRESS_EXHAUSTED, CniError
from cnictl.core.outside import is_name
from cnictl.core.paths import NETWORKS_DIR

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cnictl.core.leases.pool import RangeSet

_OWNER_MAX = 250
"""Bytes: a record's file is named after both, and a name has at most 255."""


class Lease:
    """An address that is held, and by whom; both names empty where the file is torn."""

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
    """An address that is asked for has a lease already."""

    def __init__(self, address: str, lease: Lease | None) -> None:
        holder = f"{lease.container} {lease.ifname}" if lease and lease.container else "a torn lease"
        super().__init__(ADDRESS_CONFLICT, f"{address} is asked for, but {holder} holds it")


class Duplicate(CniError):
    """The container's interface holds an address already, by a lease that is not ours to judge."""

    def __init__(self, lease: Lease) -> None:
        super().__init__(
            ADDRESS_CONFLICT,
            f"{lease.container} {lease.ifname} already holds {lease.address}",
            "the runtime has to DEL this attachment before it may ADD it again",
        )


def parse_owner(raw: bytes) -> tuple[str, str]:
    """Container and interface that a lease names; both empty where no runtime can have written what is there."""
    container, _, ifname = raw[:_OWNER_MAX].decode("utf-8", "replace").partition("\n")
    container, ifname = container.strip(), ifname.strip()
    both = container + ifname
    if len(raw) > _OWNER_MAX or container[:1] == "." or not both.isprintable() or "/" in both or "\ufffd" in both:
        return "", ""
    return container, ifname


def folder_networks(data_dir: str = NETWORKS_DIR) -> list[str]:
    """Networks that have a lease store; what is none is passed over."""
    from cnictl.core import odd

    try:
        names = listdir(data_dir)
    except FileNotFoundError:
        return []
    except OSError as error:
        if isinstance(error, PermissionError) and geteuid():
            raise  # an ordinary user: the caller says who may look
        odd.pass_over_error(data_dir, error)
        return []
    found = []
    for name in names:
        path = f"{data_dir}/{name}"
        try:
            names_in = _names_in(path)
        except NotADirectoryError:
            odd.pass_over(path, "is a file, not a network's folder")
            continue
        except OSError as error:
            # a link that leads nowhere, or in a circle, is no folder either
            odd.pass_over(path, (error.strerror or str(error)).lower(), error.errno not in (ENOENT, ELOOP))
            continue
        held = any(map(_is_address, names_in))
        if not is_name(name):
            odd.pass_over(path, "has no network's name" + (", and holds leases" if held else ""), matters=held)
        elif (
            names_in and not held and not any(one == "lock" or one.startswith("last_reserved_ip.") for one in names_in)
        ):
            odd.pass_over(path, "holds nothing that a network's folder does")
        else:
            found.append(name)
    return sorted(found)


def _names_in(path: str) -> list[str]:
    """What a folder holds. Raises OSError for what is no folder, or can't be read."""
    descriptor = open_descriptor(f"{path}/.", O_RDONLY | O_CLOEXEC)
    try:
        return listdir(descriptor)
    finally:
        close(descriptor)


def _is_address(name: str) -> bool:
    try:
        return bool(parse_address(name))
    except AddressError:
        return False
