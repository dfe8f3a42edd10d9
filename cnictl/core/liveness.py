"""Judge whether an attachment is live or stale. Only what is proven stale counts as stale."""

from posix import stat

from cnictl.core import attachments, durable
from cnictl.core.attachments import Record
from cnictl.core.netlink import rtnetlink
from cnictl.core.netlink.rtnetlink import Netlink
from cnictl.core.netns import identity
from cnictl.core.paths import NETWORKS_DIR

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from cnictl.core.foreign_links import ForeignLinks

LIVE, STALE, IN_FLIGHT, UNKNOWN = "live", "stale", "in flight", "unknown"
_EARLIER = "from before the last boot"


class Verdict:
    """A state (live, stale, in flight, unknown) and the evidence for it in words."""

    __slots__ = ("link", "reason", "state")

    def __init__(self, state: str, reason: str, link: str = "") -> None:
        self.state = state
        self.reason = reason
        self.link = link
        """The host veth of another plugin that leads to its addresses, if there is exactly one."""


def boot_id() -> str:
    """Return the kernel's id of this boot (random(4), /proc/sys/kernel/random/boot_id)."""
    return durable.contents("/proc/sys/kernel/random/boot_id").decode().strip()


def judge(record: Record, netlink: Netlink | None = None, foreign: "ForeignLinks | None" = None) -> Verdict:
    """Judge an attachment by its record, in the host's network namespace.

    The two ends of a veth pair vanish together, even if only one end's namespace is removed: if the host's end is gone,
    so is the pod's. `foreign`: the links that another plugin made, for a caller that judges several attachments.
    """
    if attachments.in_flight(record):
        return Verdict(IN_FLIGHT, "an ADD or DEL is working on it")
    return judge_settled(record, netlink, foreign)


def judge_settled(record: Record, netlink: Netlink | None = None, foreign: "ForeignLinks | None" = None) -> Verdict:
    """Judge an attachment as `judge` does, for a caller that holds the record's lock itself."""
    earlier = bool(record.boot_id) and record.boot_id != boot_id()
    if not record.host_veth:
        return judge_unmarked(record.addresses, record.created, record.data_dir, netlink, foreign, earlier)
    if earlier:
        return Verdict(STALE, _EARLIER)
    if not record.complete:
        return Verdict(STALE, "its ADD was cut off")
    if netlink is None:
        with Netlink() as own:
            return _judge_link(record, own)
    return _judge_link(record, netlink)


def _judge_link(record: Record, netlink: Netlink) -> Verdict:
    if rtnetlink.get_link(netlink, record.host_veth) is not None:
        return Verdict(LIVE, f"{record.host_veth} exists")
    if record.netns and identity(record.netns) != (record.netns_dev, record.netns_ino):
        return Verdict(STALE, f"its namespace {record.netns} is gone")
    return Verdict(STALE, f"its veth {record.host_veth} is gone")


def judge_unmarked(
    addresses: "Sequence[str]",
    created: float,
    data_dir: str,
    netlink: Netlink | None = None,
    foreign: "ForeignLinks | None" = None,
    earlier: bool = False,
) -> Verdict:
    """Judge an attachment by its leases alone: host-local made them, and no link is recorded for them.

    `created` is in seconds since the epoch; `earlier`: the leases were seen in an earlier boot. They are live if an
    interface has one of the addresses. If other nodes may lease from the same store, nothing else proves anything.
    """
    from cnictl.core.foreign_links import ForeignLinks
    from cnictl.core.leases.shared_store import may_be_shared

    if foreign is not None:
        links = foreign.having(addresses)
    elif netlink is not None:
        links = ForeignLinks(netlink).having(addresses)
    else:
        with Netlink() as own:
            links = ForeignLinks(own).having(addresses)
    if links:
        names = ", ".join(link.name for link in links)
        reason = f"its address is in use behind {names}, which another plugin made"
        return Verdict(LIVE, reason, names if len(links) == 1 else "")
    if may_be_shared(data_dir):
        return Verdict(UNKNOWN, f"another node may hold it: {data_dir or NETWORKS_DIR} may be shared by several nodes")
    if earlier:
        return Verdict(STALE, _EARLIER)
    if created and created < boot_time():
        return Verdict(STALE, "its lease is from before the last boot")
    return Verdict(UNKNOWN, "host-local leased it; its interface is not known")


def boot_time() -> float:
    """Return a time before which nothing was written in this boot, in seconds since the epoch.

    It is the earlier of btime (proc(5), /proc/stat) and the device nodes' timestamp. btime moves when the clock is set:
    a host without an RTC boots with a wrong, early clock, and files from before the correction would seem to be older
    than the boot. The device nodes keep the time at which the host booted.
    """
    for line in durable.contents("/proc/stat").splitlines():
        if line.startswith(b"btime "):
            return min(float(line.split()[1]), stat("/dev/null").st_mtime)
    return 0.0
