"""Whether an attachment lives, by proof alone: what is not proven stale is left in peace."""

from posix import stat

from cnictl.core import attachments, durable, rtnetlink
from cnictl.core.attachments import Record
from cnictl.core.netns import identity
from cnictl.core.rtnetlink import Netlink

LIVE, STALE, IN_FLIGHT, UNKNOWN = "live", "stale", "in flight", "unknown"


class Verdict:
    """A state (live, stale, in flight, unknown) and its evidence in words."""

    __slots__ = ("reason", "state")

    def __init__(self, state: str, reason: str) -> None:
        self.state = state
        self.reason = reason


def boot_id() -> str:
    """The kernel's name for this boot (random(4), /proc/sys/kernel/random/boot_id)."""
    return durable.contents("/proc/sys/kernel/random/boot_id").decode().strip()


def judge(record: Record, netlink: Netlink | None = None) -> Verdict:
    """Judge an attachment by its record, in the host's network namespace.

    A veth's two ends vanish together and with either's namespace: where the host end is gone, so is the pod's.
    """
    if attachments.in_flight(record):
        return Verdict(IN_FLIGHT, "an ADD or DEL is at work on it")
    return judge_settled(record, netlink)


def judge_settled(record: Record, netlink: Netlink | None = None) -> Verdict:
    """As `judge`, where the caller holds the record's lock itself."""
    if record.boot_id and record.boot_id != boot_id():
        return Verdict(STALE, "from before the last boot")
    if not record.host_veth:
        return judge_unmarked(record.created, boot_time())
    if not record.complete:
        return Verdict(STALE, "its ADD was cut off")
    if netlink is None:
        with Netlink() as own:
            return _judge_link(record, own)
    return _judge_link(record, netlink)


def _judge_link(record: Record, netlink: Netlink) -> Verdict:
    if rtnetlink.get_link(netlink, record.host_veth) is not None:
        return Verdict(LIVE, f"{record.host_veth} is there")
    if record.netns and identity(record.netns) != (record.netns_dev, record.netns_ino):
        return Verdict(STALE, f"its namespace {record.netns} is gone")
    return Verdict(STALE, f"its veth {record.host_veth} is gone")


def judge_unmarked(created: float, booted: float) -> Verdict:
    """A lease that host-local wrote names no interface: only a boot since (`boot_time`) proves anything."""
    if created and created < booted:
        return Verdict(STALE, "its lease is from before the last boot")
    return Verdict(UNKNOWN, "host-local leased it and left no trace of its interface")


def boot_time() -> float:
    """A time that nothing of this boot is older than, in seconds since the epoch (proc(5), /proc/stat btime).

    btime moves when the clock is set: a host without a clock chip boots in the past, and what it wrote until the
    time came from the network would seem to be from before. The device nodes are from the first clock of the boot.
    """
    for line in durable.contents("/proc/stat").splitlines():
        if line.startswith(b"btime "):
            return min(float(line.split()[1]), stat("/dev/null").st_mtime)
    return 0.0
