"""Pods that are there already, as the attachment records know them."""

from cnictl.core import attachments, liveness
from cnictl.core.attachments import Record
from cnictl.core.errors import Problem
from cnictl.node.spec import pod_names
from cnictl.node.spec.pod_names import Names
from cnictl.probe.pods import CheckedPod


def existing_pod(text: str) -> CheckedPod:
    """The live pod of that address, name or container id (or its beginning), of any network of ours.

    Raises Problem if there is none, several, or it is not live.
    """
    found = known_as(text)
    if not found:
        raise Problem(f"no attachment has the address or container id {text}, or is of a pod called so",
                      "cnictl ipam list shows them")  # fmt: skip
    verdicts = [(record, liveness.judge(record)) for record in found]
    live = [record for record, verdict in verdicts if verdict.state == liveness.LIVE and record.netns]
    if len({record.container for record in live}) > 1:
        listed = ", ".join(f"{record.pod or record.container} at {' '.join(record.addresses)}" for record in live)
        raise Problem(f"{text}: {len(live)} live pods are called so: {listed}", "give an address")
    if not live:
        verdict = verdicts[0][1]
        raise Problem(f"{text}: the attachment is {verdict.state}: {verdict.reason}", "cnictl ipam list")
    return _as_pod(live[0])


def known_as(text: str) -> list[Record]:
    """The attachments of this node that `text` may mean."""
    records = [record for network in attachments.networks() for record in attachments.all_records(network)]
    return pod_names.named(text, records, _names)


def _names(record: Record) -> Names:
    return Names(tuple(record.addresses), record.pod, record.container)


def neighbour_of(pod: CheckedPod, network: str) -> CheckedPod | None:
    """Another live pod of the network on this node, or None."""
    for record in attachments.all_records(network):
        if not record.netns or record.host_veth == pod.host_veth:
            continue  # one that another plugin made has no recorded namespace
        if liveness.judge(record).state == liveness.LIVE:
            return _as_pod(record)
    return None


def _as_pod(record: Record) -> CheckedPod:
    if not record.addresses:
        raise Problem(f"container {record.container} has no address", "cnictl ipam list")
    return CheckedPod(record.pod or record.container, record.netns, tuple(record.addresses), record.host_veth)
