"""One lease as its file says it, and what keeps an ADD from getting one."""

from posix import O_CLOEXEC, O_RDONLY, close, listdir
from posix import open as open_descriptor

from cnictl.core.errors import ADDRESS_CONFLICT, ADDRESS_EXHAUSTED, CniError
from cnictl.core.paths import NETWORKS_DIR

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cnictl.core.pool import RangeSet

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
            f"`cnictl ipam list --network {network}` shows who holds them, `cnictl ipam gc` frees the stale ones",
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
    """Networks that have a lease store."""
    found = []
    try:
        names = listdir(data_dir)
    except FileNotFoundError:
        return []
    for name in names:
        try:
            close(open_descriptor(f"{data_dir}/{name}/.", O_RDONLY | O_CLOEXEC))
        except OSError:
            continue
        found.append(name)
    return sorted(found)
