"""The host end of an attachment's veth pair: its name, its mark, and the proof that a link is this attachment's.

A name is no proof: a link that has it is another's until its alias, or the namespace behind it, says otherwise.
"""

from cnictl.core import attachments
from cnictl.core.attachments import Record
from cnictl.core.digest import former_host_veth_name, host_veth_name
from cnictl.core.errors import INTERFACE_EXISTS, CniError
from cnictl.core.netlink import rtnetlink
from cnictl.core.netlink.rtnetlink import Link, Netlink
from cnictl.core.outside import word
from cnictl.core.unlinking import unlink

TURNS = 8
"""Names that an attachment may have: the first that no link has is taken."""

ALIAS_LIMIT = 255
"""Bytes the kernel takes for a link's alias; longer is ERANGE."""


def alias(record: Record) -> str:
    """The mark of an attachment's host veth: `cnictl:NETWORK/POD`; the container stands for a pod without a name."""
    text = f"cnictl:{record.network}/{word(record.pod or record.container)}"
    return text.encode()[:ALIAS_LIMIT].decode("utf-8", "ignore")


def choose(netlink: Netlink, record: Record) -> str:
    """Return the first name for the attachment's host veth that no link has.

    Raises CniError 102 if this attachment has a link already, or every name is taken.
    """
    for turn in range(TURNS):
        name = host_veth_name(record.network, record.container, record.ifname, turn)
        link = rtnetlink.get_link(netlink, name)
        if link is None:
            return name
        if link.kind == "veth" and link.alias in _marks(record) and not _recorded(name):
            raise CniError(
                INTERFACE_EXISTS,
                f"host veth {name} of {record.container} {record.ifname} exists already, without a record",
                "the runtime has to DEL this attachment before it may ADD it again",
            )
    raise CniError(
        INTERFACE_EXISTS,
        f"all {TURNS} names for the host veth of {record.container} {record.ifname} are taken, {name} last",
        "see `ip -d link` for what has them",
    )


def remove_recorded(netlink: Netlink, record: Record) -> bool:
    """Remove the host veth that a record names, if it is this attachment's. Raises OSError if the link stays.

    Returns False if the name is another link's by now; true also where there is no such link.
    """
    link = rtnetlink.get_link(netlink, record.host_veth)
    if link is None:
        return True
    if not _is_of(netlink, link, record):
        return False
    unlink(netlink, link.name, seen=True)
    return True


def remove_unrecorded(netlink: Netlink, record: Record, netns: str = "") -> list[str]:
    """Remove the links of an attachment whose record was lost: those with one of its names and its own mark.

    `record` says whose they are, and the pod's name as far as it is known; where that is missing, the pod's interface
    in the namespace at the path `netns` tells. Returns the names that no other link has.
    """
    marks, free = _marks(record), []
    for name in all_names(record.network, record.container, record.ifname):
        link = rtnetlink.get_link(netlink, name)
        if link is not None:
            if link.kind != "veth" or not link.alias.startswith(f"cnictl:{record.network}/") or _recorded(name):
                continue
            if link.alias not in marks and not _leads_into(netlink, link, netns, record.ifname):
                continue
            unlink(netlink, name, seen=True)
            record.host_veth = name
        free.append(name)
    return free


def all_names(network: str, container: str, ifname: str) -> list[str]:
    """Every name that the attachment's host veth can have, those of former releases included."""
    names = [host_veth_name(network, container, ifname, turn) for turn in range(TURNS)]
    return [*names, former_host_veth_name(network, container, ifname)]


def _is_of(netlink: Netlink, link: Link, record: Record) -> bool:
    """Whether the link under a record's name is its attachment's: by its mark, else by the namespace behind it."""
    if link.kind != "veth":
        return False
    if link.alias == alias(record) or link.alias in _marks(record):
        return True
    # somebody changed the mark, or the name is another's
    return _leads_into(netlink, link, record.netns, record.ifname, (record.netns_dev, record.netns_ino))


def _marks(record: Record) -> set[str]:
    """The marks that the attachment's link may have: a runtime may name the pod in one call and not in another."""
    return {alias(record), alias(Record(record.network, record.container, record.ifname))}


def _leads_into(netlink: Netlink, link: Link, netns: str, ifname: str, identity: tuple[int, int] | None = None) -> bool:
    from cnictl.core.netlink import veth_peer  # not what a plain call pays for

    return bool(netns) and veth_peer.leads_into(netlink, link, netns, ifname, identity)


def _recorded(name: str) -> bool:
    """Whether any attachment's record names the link."""
    return name in attachments.host_veths()
