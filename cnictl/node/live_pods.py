"""Pods that would lose their network: what has to be asked before a node moves or is reset."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from cnictl.core import attachments, liveness, macspoof, rtnetlink
from cnictl.core.attachments import Record
from cnictl.core.cidr import format_address, parse_address, parse_cidr
from cnictl.core.detach import detach
from cnictl.core.errors import CniError, Problem
from cnictl.core.lease import Lease
from cnictl.core.leases import Store
from cnictl.core.netlink import attributes
from cnictl.core.other_end import OtherEnds
from cnictl.core.paths import NETWORKS_DIR
from cnictl.core.rtnetlink import Link, Netlink
from cnictl.core.unlinking import unlink
from cnictl.node.journal import Journal
from cnictl.node.peers import is_link_local
from cnictl.node.spec import NodeSpec

_MARK = "cnictl:"
"""How the alias of a host veth begins: `cnictl:NETWORK/POD`."""
_IFLA_LINK_NETNSID = 37
_SHOWN = 10


@dataclass(frozen=True)
class Pod:
    """One attachment, and what is known of its life."""

    network: str
    container: str
    ifname: str
    name: str
    """As the runtime named the pod; empty where it didn't."""
    addresses: tuple[str, ...]
    state: str
    """One of `core.liveness`'s."""
    reason: str
    data_dir: str = NETWORKS_DIR
    ours: bool = True
    """Whether cnictl's plugin attached it, not host-local before it."""
    lost_port: str = ""
    """Its host veth, where no record but the link's alias tells of it."""

    def __str__(self) -> str:
        who = self.name or self.container[:13]
        return f"{who} ({', '.join(self.addresses) or 'no address'}, {self.state})"


def attached(names: Iterable[str]) -> list[Pod]:
    """Every attachment of these networks, also those that are only a lease, or only a link with our alias.

    Nothing is written.
    """
    found = []
    wanted = list(names)
    with Netlink() as netlink:
        marked = _marked_ports(netlink)  # ahead of the records: an ADD writes its record before it makes its link
        for network in wanted:
            records = attachments.all_records(network)
            known = {(record.container, record.ifname) for record in records}
            found += [_of_record(record, netlink) for record in records]
            found += _of_ports(network, marked, {record.host_veth for record in records})
            found += [
                _of_lease(network, lease)
                for lease in Store(network).all()
                if lease.container and (lease.container, lease.ifname) not in known
            ]
    return found


def unrecorded_ports(names: Iterable[str]) -> list[str]:
    """Host veths of these networks by their alias, that no record names."""
    return [pod.lost_port for pod in attached(names) if pod.lost_port]


def _marked_ports(netlink: Netlink) -> list[tuple[Link, bytes]]:
    """Veths with a pod's alias, each with the id of its other end's namespace; empty: it is here."""
    found = []
    for payload in netlink.dump(rtnetlink.RTM_GETLINK, rtnetlink.ifinfo()):
        link = Link(payload)
        if link.kind == "veth" and link.alias.startswith(_MARK) and "/" in link.alias:
            found.append((link, attributes(payload, 16).get(_IFLA_LINK_NETNSID, b"")))
    return found


def _of_ports(network: str, marked: list[tuple[Link, bytes]], known: set[str]) -> list[Pod]:
    found = []
    for link, namespace in marked:
        named, _, pod = link.alias.removeprefix(_MARK).partition("/")
        if named != network or link.name in known:
            continue
        state = liveness.UNKNOWN if namespace else liveness.STALE
        reason = f"no record names its veth {link.name}" + ("" if namespace else ", whose other end is on this host")
        addresses = tuple(sorted(_addresses(link, namespace))) if namespace else ()
        found.append(Pod(network, "", "", pod, addresses, state, reason, lost_port=link.name))
    return found


def _addresses(link: Link, namespace: bytes) -> list[str]:
    """The other end's addresses but for link-local ones; none before Linux 4.20, which can't tell."""
    try:
        ends = OtherEnds()
        with ends:
            found = ends.own_addresses(link, namespace)
    except OSError:
        return []
    return [format_address(one) for one in found if not is_link_local(one)]


def _of_lease(network: str, lease: Lease) -> Pod:
    reason = "host-local leased it and left no trace of its interface"
    return Pod(network, lease.container, lease.ifname, "", (lease.address,), liveness.UNKNOWN, reason, ours=False)


def _of_record(record: Record, netlink: Netlink) -> Pod:
    verdict = liveness.judge(record, netlink)
    return Pod(
        record.network, record.container, record.ifname, record.pod, tuple(record.addresses), verdict.state,
        verdict.reason, record.data_dir or NETWORKS_DIR, bool(record.host_veth),
    )  # fmt: skip


def cut_off(before: Sequence[NodeSpec], after: NodeSpec | None) -> list[Pod]:
    """Pods not proven dead that would lose their network if the host moved from `before` to `after`; None: a reset."""
    moved = [one for one in before if after is None or not _stays(one, after)]
    pods = [pod for pod in attached(dict.fromkeys(one.name for one in moved)) if pod.state != liveness.STALE]
    return [pod for pod in pods if after is None or not _is_untouched(pod, moved, after)]


def _is_untouched(pod: Pod, moved: Sequence[NodeSpec], after: NodeSpec) -> bool:
    """Whether all its addresses lie in subnets that stay where it is: a family it never had may go."""
    for one in moved:
        if one.name == pod.network:
            stay = [parse_cidr(subnet) for subnet in one.subnets if subnet in after.subnets]
            known = all(any(cidr.holds(parse_address(text)) for cidr in stay) for text in pod.addresses)
            if (one.name, one.bridge) != (after.name, after.bridge) or not pod.addresses or not known:
                return False
    return True


def _stays(before: NodeSpec, after: NodeSpec) -> bool:
    """Whether all that a running pod depends on stays as it is; a family more takes nothing from it."""
    same = (before.name, before.bridge) == (after.name, after.bridge)
    return same and set(before.subnets) <= set(after.subnets)


def refuse(pods: Sequence[Pod], what: str) -> None:
    """Raise Problem with the list of pods if there are any."""
    if not pods:
        return
    shown = ", ".join(str(pod) for pod in pods[:_SHOWN])
    more = f" and {len(pods) - _SHOWN} more" if len(pods) > _SHOWN else ""
    raise Problem(
        f"{what} would cut off {len(pods)} pod{'s' if len(pods) != 1 else ''}: {shown}{more}",
        "move them away first, or use --force: their attachments are then deleted, as at the end of a pod",
    )


def detach_all(pods: Iterable[Pod], journal: Journal) -> list[Pod]:
    """Delete each attachment properly, so that no pod hangs in Terminating for want of a plugin. Raises Problem."""
    done = []
    with Netlink() as netlink:
        for pod in pods:
            was = {"pod": pod.name, "addresses": list(pod.addresses), "state": pod.state}
            if pod.lost_port:
                what = f"remove {pod.lost_port}, the veth of {pod}"
                journal.begin(f"attachment/{pod.network}/{pod.lost_port}", was, None,
                              f"ip link delete {pod.lost_port}", what)  # fmt: skip
                macspoof.remove(pod.lost_port)
                unlink(netlink, pod.lost_port)
                done.append(pod)
                continue
            where, what = f"attachment/{pod.network}/{pod.container}@{pod.ifname}", f"delete the attachment of {pod}"
            journal.begin(where, was, None, f"cnictl ipam release {pod.container} --network {pod.network}", what)
            try:
                detach(netlink, pod.network, pod.container, pod.ifname, pod.data_dir)
            except (CniError, OSError) as error:
                raise Problem(f"{pod}: its attachment can't be deleted: {error}") from None
            done.append(pod)
    return done
