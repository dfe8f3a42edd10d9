"""Find the pods that would lose their network if the node moved or was reset."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from cnictl.core import attachments, isolation, liveness, macspoof
from cnictl.core.attachments import Record
from cnictl.core.cidr import format_address, parse_address, parse_cidr
from cnictl.core.counted import counted, first_of
from cnictl.core.detach import detach
from cnictl.core.errors import Problem
from cnictl.core.foreign_links import ForeignLinks
from cnictl.core.foreign_pair import remove_pair
from cnictl.core.leases.lease import Lease
from cnictl.core.leases.lease_store import Store
from cnictl.core.leases.shared_store import may_be_shared
from cnictl.core.netlink import rtnetlink
from cnictl.core.netlink.rtnetlink import OWNER_MARK, Link, Netlink
from cnictl.core.netlink.veth_peer import addresses_behind
from cnictl.core.paths import NETWORKS_DIR
from cnictl.core.unlinking import unlink
from cnictl.node.spec.node_spec import NodeSpec
from cnictl.node.spec.peers import is_link_local
from cnictl.node.state.journal import Journal

_SHOWN = 10


@dataclass(frozen=True)
class AttachedPod:
    """One attachment, and whether its pod is alive."""

    network: str
    container: str
    ifname: str
    name: str
    """The pod's name from the runtime; empty if it gave none."""
    addresses: tuple[str, ...]
    state: str
    """A state of `core.liveness`."""
    reason: str
    data_dir: str = NETWORKS_DIR
    ours: bool = True
    """Whether cnictl's plugin attached it; if not, another plugin did, with host-local."""
    lost_port: str = ""
    """The pod's host veth, if the link's alias names the pod but no record does."""

    def __str__(self) -> str:
        who = self.name or self.container[:13]
        return f"{who} ({', '.join(self.addresses) or 'no address'}, {self.state})"


def attached(names: Iterable[str]) -> list[AttachedPod]:
    """Return every attachment of these networks, even if only its lease or only a link with our alias is left.

    Nothing is written. In a store that several nodes use, an attachment counts as this host's only if its link is here.
    """
    attachments_here = []
    wanted = list(names)
    with Netlink() as netlink:
        foreign = ForeignLinks(netlink)
        # read the links before the records, because an ADD writes its record before it makes its link
        veths = [link for link in rtnetlink.all_links(netlink) if link.kind == "veth"]
        marked = [link for link in veths if link.alias.startswith(OWNER_MARK) and "/" in link.alias]
        for network in wanted:
            records, store = attachments.all_records(network), Store(network)
            known = {(record.container, record.ifname) for record in records}
            leases = [
                lease for lease in store.all() if lease.container and (lease.container, lease.ifname) not in known
            ]
            pods = [_of_record(record, netlink, foreign) for record in records]
            pods += [_of_lease(store, lease, foreign) for lease in leases]
            attachments_here += [
                pod for pod in pods if pod.ours or pod.state == liveness.LIVE or not may_be_shared(pod.data_dir)
            ]
            attachments_here += _of_ports(network, marked, {record.host_veth for record in records})
    return attachments_here


def unrecorded_ports(names: Iterable[str]) -> list[str]:
    """Return the host veths with the alias of one of these networks that no record names."""
    return [pod.lost_port for pod in attached(names) if pod.lost_port]


def _of_ports(network: str, marked: list[Link], known: set[str]) -> list[AttachedPod]:
    lost = [link for link in marked if link.name not in known and link.alias.startswith(f"{OWNER_MARK}{network}/")]
    pods = []
    for link, present in zip(lost, addresses_behind(lost), strict=True):
        state = liveness.UNKNOWN if link.peer_namespace else liveness.STALE
        reason = f"no record names its veth {link.name}"
        reason += "" if link.peer_namespace else ", whose other end is on this host"
        addresses = tuple(sorted(format_address(packed) for packed in present if not is_link_local(packed)))
        pod = link.alias.removeprefix(f"{OWNER_MARK}{network}/")
        pods.append(AttachedPod(network, "", "", pod, addresses, state, reason, lost_port=link.name))
    return pods


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
    """Return the pods, not proven dead, that would lose their network under the spec `after` (None: after a reset)."""
    moved = [spec for spec in before if after is None or not _stays(spec, after)]
    pods = [pod for pod in attached(dict.fromkeys(spec.name for spec in moved)) if pod.state != liveness.STALE]
    return [pod for pod in pods if after is None or not _is_untouched(pod, moved, after)]


def _is_untouched(pod: AttachedPod, moved: Sequence[NodeSpec], after: NodeSpec) -> bool:
    """Return whether all addresses of a pod are in subnets that stay. Families that the pod lacks don't matter."""
    for spec in moved:
        if spec.name == pod.network:
            stay = [parse_cidr(subnet) for subnet in spec.subnets if subnet in after.subnets]
            known = all(any(cidr.holds(parse_address(text)) for cidr in stay) for text in pod.addresses)
            if (spec.name, spec.bridge) != (after.name, after.bridge) or not pod.addresses or not known:
                return False
    return True


def _stays(before: NodeSpec, after: NodeSpec) -> bool:
    """Return whether everything that a running pod depends on stays; an added family does no harm."""
    same = (before.name, before.bridge) == (after.name, after.bridge)
    return same and set(before.subnets) <= set(after.subnets)


def refuse(pods: Sequence[AttachedPod], command: str) -> None:
    """Raise Problem with the list of pods if there are any."""
    if pods:
        raise refusal(pods, command)


def refusal(pods: Sequence[AttachedPod], command: str) -> Problem:
    """Return the error of a command that would cut off these pods."""
    return Problem(
        f"{command} would cut off {counted(len(pods), 'pod')}: {first_of(list(map(str, pods)), _SHOWN)}",
        "move them away first, or use --force, which detaches them as when a pod stops",
    )


def detach_all(pods: Iterable[AttachedPod], journal: Journal) -> list[AttachedPod]:
    """Delete each attachment as a DEL does; a pod without a plugin would stay in Terminating. Raises Problem."""
    done = []
    with Netlink() as netlink:
        for pod in pods:
            was = {"pod": pod.name, "addresses": list(pod.addresses), "state": pod.state}
            name, summary = f"{pod.container}@{pod.ifname}", f"delete the attachment of {pod}"
            command = f"cnictl ipam release {pod.container} --name {pod.network}"
            if port := pod.lost_port:
                name, summary, command = port, f"remove {port}, the veth of {pod}", f"ip link delete {port}"
            journal.begin(f"attachment/{pod.network}/{name}", was, None, command, summary)
            try:
                if port:
                    macspoof.remove((port,))
                    isolation.remove(port, recorded=False)
                    unlink(netlink, port)
                else:
                    owner = (pod.network, pod.container, pod.ifname, pod.data_dir)
                    detach(netlink, *owner, before_release=lambda record: remove_pair(netlink, record), pod=pod.name)
            except (Problem, OSError) as error:
                raise Problem(f"{pod}: its attachment can't be deleted: {error}") from None
            done.append(pod)
    return done
