"""Find the pods that would lose their network if the node moved or was reset."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from cnictl.core import attachments, isolation, liveness, macspoof
from cnictl.core.attachments import Record
from cnictl.core.cidr import format_address, parse_address, parse_cidr
from cnictl.core.detach import detach
from cnictl.core.errors import Problem
from cnictl.core.foreign import MARK, ForeignLinks
from cnictl.core.leases.lease import Lease
from cnictl.core.leases.lease_store import Store
from cnictl.core.leases.shared_store import may_be_shared
from cnictl.core.netlink import rtnetlink
from cnictl.core.netlink.rtnetlink import Link, Netlink
from cnictl.core.netlink.veth_peer import addresses_behind
from cnictl.core.paths import NETWORKS_DIR
from cnictl.core.taken_over import remove_pair
from cnictl.core.unlinking import unlink
from cnictl.node.spec.node_spec import NodeSpec
from cnictl.node.spec.peers import is_link_local
from cnictl.node.state.journal import Journal

_SHOWN = 10


@dataclass(frozen=True)
class AttachedPod:
    """One attachment, and whether it is alive."""

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


def attached(names: Iterable[str]) -> list[AttachedPod]:
    """Return every attachment of these networks, also those that are only a lease, or only a link with our alias.

    Nothing is written. What may be another node's, in a store that several use, is none of this host's unless its link
    is here.
    """
    found = []
    wanted = list(names)
    with Netlink() as netlink:
        foreign = ForeignLinks(netlink)
        marked = _marked_ports(netlink)  # ahead of the records: an ADD writes its record before it makes its link
        for network in wanted:
            records, store = attachments.all_records(network), Store(network)
            known = {(record.container, record.ifname) for record in records}
            leases = [one for one in store.all() if one.container and (one.container, one.ifname) not in known]
            pods = [_of_record(record, netlink, foreign) for record in records]
            pods += [_of_lease(store, lease, foreign) for lease in leases]
            found += [pod for pod in pods if pod.ours or pod.state == liveness.LIVE or not may_be_shared(pod.data_dir)]
            found += _of_ports(network, marked, {record.host_veth for record in records})
    return found


def unrecorded_ports(names: Iterable[str]) -> list[str]:
    """Host veths of these networks by their alias, that no record names."""
    return [pod.lost_port for pod in attached(names) if pod.lost_port]


def _marked_ports(netlink: Netlink) -> list[Link]:
    """Veths with a pod's alias."""
    links = rtnetlink.all_links(netlink)
    return [link for link in links if link.kind == "veth" and link.alias.startswith(MARK) and "/" in link.alias]


def _of_ports(network: str, marked: list[Link], known: set[str]) -> list[AttachedPod]:
    lost = [link for link in marked if link.name not in known and link.alias.startswith(f"{MARK}{network}/")]
    found = []
    for link, present in zip(lost, addresses_behind(lost), strict=True):
        state = liveness.UNKNOWN if link.peer_namespace else liveness.STALE
        reason = f"no record names its veth {link.name}"
        reason += "" if link.peer_namespace else ", whose other end is on this host"
        addresses = tuple(sorted(format_address(packed) for packed in present if not is_link_local(packed)))
        pod = link.alias.removeprefix(f"{MARK}{network}/")
        found.append(AttachedPod(network, "", "", pod, addresses, state, reason, lost_port=link.name))
    return found


def _of_lease(store: Store, lease: Lease, foreign: ForeignLinks) -> AttachedPod:
    verdict = liveness.judge_unmarked([lease.address], lease.modified, store.data_dir, foreign=foreign)
    return AttachedPod(
        store.network, lease.container, lease.ifname, "", (lease.address,), verdict.state, verdict.reason, ours=False
    )


def _of_record(record: Record, netlink: Netlink, foreign: ForeignLinks) -> AttachedPod:
    verdict = liveness.judge(record, netlink, foreign)
    return AttachedPod(
        record.network, record.container, record.ifname, record.pod, tuple(record.addresses), verdict.state,
        verdict.reason, record.data_dir or NETWORKS_DIR, bool(record.host_veth),
    )  # fmt: skip


def cut_off(before: Sequence[NodeSpec], after: NodeSpec | None) -> list[AttachedPod]:
    """Pods not proven dead that would lose their network if the host moved from `before` to `after`; None: a reset."""
    moved = [one for one in before if after is None or not _stays(one, after)]
    pods = [pod for pod in attached(dict.fromkeys(one.name for one in moved)) if pod.state != liveness.STALE]
    return [pod for pod in pods if after is None or not _is_untouched(pod, moved, after)]


def _is_untouched(pod: AttachedPod, moved: Sequence[NodeSpec], after: NodeSpec) -> bool:
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


def refuse(pods: Sequence[AttachedPod], what: str) -> None:
    """Raise Problem with the list of pods if there are any."""
    if not pods:
        return
    shown = ", ".join(str(pod) for pod in pods[:_SHOWN])
    more = f" and {len(pods) - _SHOWN} more" if len(pods) > _SHOWN else ""
    raise Problem(
        f"{what} would cut off {len(pods)} pod{'s' if len(pods) != 1 else ''}: {shown}{more}",
        "move them away first, or use --force: their attachments are then deleted, as at the end of a pod",
    )


def detach_all(pods: Iterable[AttachedPod], journal: Journal) -> list[AttachedPod]:
    """Delete each attachment properly, so that no pod hangs in Terminating for want of a plugin. Raises Problem."""
    done = []
    with Netlink() as netlink:
        for pod in pods:
            was = {"pod": pod.name, "addresses": list(pod.addresses), "state": pod.state}
            if pod.lost_port:
                what = f"remove {pod.lost_port}, the veth of {pod}"
                journal.begin(f"attachment/{pod.network}/{pod.lost_port}", was, None,
                              f"ip link delete {pod.lost_port}", what)  # fmt: skip
                macspoof.remove((pod.lost_port,))
                isolation.remove(pod.lost_port, recorded=False)
                unlink(netlink, pod.lost_port)
                done.append(pod)
                continue
            where, what = f"attachment/{pod.network}/{pod.container}@{pod.ifname}", f"delete the attachment of {pod}"
            journal.begin(where, was, None, f"cnictl ipam release {pod.container} --name {pod.network}", what)
            try:
                which = (pod.network, pod.container, pod.ifname, pod.data_dir)
                detach(netlink, *which, before=lambda record: remove_pair(netlink, record), pod=pod.name)
            except (Problem, OSError) as error:
                raise Problem(f"{pod}: its attachment can't be deleted: {error}") from None
            done.append(pod)
    return done
