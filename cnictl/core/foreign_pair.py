"""Find and remove the host veth of an attachment that another plugin made before cnictl took over its network.

A name in a result or lease does not prove that a link belongs to the attachment. What the pod shows about its own
interface proves nothing either.
"""

from cnictl.core import attachments
from cnictl.core.attachments import Record
from cnictl.core.cidr import format_address, parse_address
from cnictl.core.foreign_links import ForeignLinks
from cnictl.core.leases.lease_store import Store
from cnictl.core.netlink import rtnetlink
from cnictl.core.netlink.rtnetlink import Link, Netlink
from cnictl.core.netlink.veth_peer import addresses_behind
from cnictl.core.netns import identity
from cnictl.core.paths import NETWORKS_DIR
from cnictl.core.reference_rules import remove_reference_rules
from cnictl.core.unlinking import unlink

_LINK_LOCAL = b"\xfe\x80"


def link_of(netlink: Netlink, record: Record, netns: str = "", bridge: str = "") -> Link | None:
    """Return the host veth that another plugin made for an attachment; None if nothing proves which link that is.

    `record` has the attachment's names and leased addresses. The proof is that the link leads to the pod's interface in
    the namespace at `netns`, or else that it is the only link with one of the addresses behind it. If a bridge is
    named, only its ports count.
    """
    master = rtnetlink.get_link(netlink, bridge) if bridge else None
    if bridge and master is None:
        return None
    port_of = master.index if master is not None else 0
    foreign = ForeignLinks(netlink)
    link = foreign.into(netns, record.ifname, port_of)
    if link is not None and not (_is_anothers_namespace(netns, record) or _has_anothers_address(link, record)):
        return link
    links = foreign.having(record.addresses, port_of)
    return links[0] if len(links) == 1 else None


def remove_pair(netlink: Netlink, record: Record, netns: str = "", bridge: str = "") -> None:
    """Remove the veth pair that another plugin made for an attachment, and the reference's rules for it.

    A missing pair is not an error, and a link without the proof of `link_of` stays. Raises CniError 106, OSError.
    """
    link = link_of(netlink, record, netns, bridge)
    if link is not None:
        unlink(netlink, link.name, seen=True)
    if link is not None or record.addresses:
        remove_reference_rules(record.network, record.container, record.ifname)


def _is_anothers_namespace(netns: str, record: Record) -> bool:
    """Return whether the namespace at a path is another container's, because the path was reused for another pod."""
    here = identity(netns)
    return here is not None and any(other.container != record.container for other in attachments.of_namespace(*here))


def _has_anothers_address(link: Link, record: Record) -> bool:
    """Return whether the pod behind a link has none of the leased addresses, or one that another attachment leased."""
    present = {packed for packed in addresses_behind([link])[0] if packed[:2] != _LINK_LOCAL}
    own = {parse_address(address) for address in record.addresses}
    if own and present and not own & present:
        return True
    owners = ((record.container, record.ifname), (record.container, ""), ("", ""))
    store = Store(record.network, record.data_dir or NETWORKS_DIR)
    leases = (store.read(format_address(packed)) for packed in present)
    return any(lease is not None and (lease.container, lease.ifname) not in owners for lease in leases)
