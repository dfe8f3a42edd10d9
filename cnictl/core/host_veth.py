"""The host veth of an attachment: its name, its alias, and the proof that a link belongs to the attachment.

A name proves nothing. A link with the name counts as another's until its alias, or the namespace behind it, proves that
the link is this attachment's.
"""

from cnictl.core import attachments
from cnictl.core.attachments import Record
from cnictl.core.digest import former_host_veth_name, host_veth_name
from cnictl.core.errors import INTERFACE_EXISTS, CniError
from cnictl.core.netlink import rtnetlink
from cnictl.core.netlink.rtnetlink import Link, Netlink
from cnictl.core.unlinking import unlink
from cnictl.core.untrusted_text import word

TURNS = 8
"""Names that an attachment's host veth may have: the first one that is free is used."""

ALIAS_LIMIT = 255
"""Bytes of a link's alias; the kernel refuses a longer one with ERANGE."""


def alias(record: Record) -> str:
    """Return the alias of a host veth: `cnictl:NETWORK/POD`, or the container id if the pod has no name."""
    text = f"cnictl:{record.network}/{word(record.pod or record.container)}"
    return text.encode()[:ALIAS_LIMIT].decode("utf-8", "ignore")


def choose(netlink: Netlink, record: Record) -> str:
    """Return the first name for the attachment's host veth that is free.

    Raises CniError 102 if this attachment already has a link, or if every name is taken.
    """
    for turn in range(TURNS):
        name = host_veth_name(record.network, record.container, record.ifname, turn)
        link = rtnetlink.get_link(netlink, name)
        if link is None:
            return name
        if link.kind == "veth" and link.alias in _aliases(record) and not _recorded(name):
            raise CniError(
                INTERFACE_EXISTS,
                f"host veth {name} of {record.container} {record.ifname} already exists, but has no record",
                "the runtime must DEL this attachment before it can ADD it again",
            )
    raise CniError(
        INTERFACE_EXISTS,
        f"all {TURNS} names for the host veth of {record.container} {record.ifname} are taken, {name} last",
        "`ip -d link` shows the links that have them",
    )


def remove_recorded(netlink: Netlink, record: Record) -> bool:
    """Remove the host veth that a record names, if it is this attachment's. Raises OSError if the link stays.

    Returns False if another link has the name now, else True, even if there is no such link.
    """
    link = rtnetlink.get_link(netlink, record.host_veth)
    if link is None:
        return True
    if not _is_of(netlink, link, record):
        return False
    unlink(netlink, link.name, seen=True)
    return True


def remove_unrecorded(netlink: Netlink, record: Record, netns: str = "") -> list[str]:
    """Remove the links of an attachment whose record is lost: those with one of its names and its alias.

    `record` has the attachment's names, and the pod's name if it is known. If not, a link is recognized by the pod's
    interface in the namespace at the path `netns`. Returns the names that no other link has.
    """
    aliases, free = _aliases(record), []
    for name in all_names(record.network, record.container, record.ifname):
        link = rtnetlink.get_link(netlink, name)
        if link is not None:
            if link.kind != "veth" or not link.alias.startswith(f"cnictl:{record.network}/") or _recorded(name):
                continue
            if link.alias not in aliases and not _leads_into(netlink, link, netns, record.ifname):
                continue
            unlink(netlink, name, seen=True)
            record.host_veth = name
        free.append(name)
    return free


def all_names(network: str, container: str, ifname: str) -> list[str]:
    """Return every name that the attachment's host veth can have, including that of cnictl up to 0.1.0."""
    names = [host_veth_name(network, container, ifname, turn) for turn in range(TURNS)]
    return [*names, former_host_veth_name(network, container, ifname)]


def _is_of(netlink: Netlink, link: Link, record: Record) -> bool:
    """Return whether the link that a record names is its attachment's, by its alias or by the namespace behind it."""
    if link.kind != "veth":
        return False
    if link.alias == alias(record) or link.alias in _aliases(record):
        return True
    # somebody changed the alias, or another link has the name
    return _leads_into(netlink, link, record.netns, record.ifname, (record.netns_dev, record.netns_ino))


def _aliases(record: Record) -> set[str]:
    """Return the aliases that the attachment's link may have: a runtime may leave out the pod's name in some calls."""
    return {alias(record), alias(Record(record.network, record.container, record.ifname))}


def _leads_into(netlink: Netlink, link: Link, netns: str, ifname: str, identity: tuple[int, int] | None = None) -> bool:
    from cnictl.core.netlink import veth_peer  # a plain call doesn't need it

    return bool(netns) and veth_peer.leads_into(netlink, link, netns, ifname, identity)


def _recorded(name: str) -> bool:
    """Return whether any attachment's record names the link."""
    return name in attachments.host_veths()
