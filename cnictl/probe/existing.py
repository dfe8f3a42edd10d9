"""Pods that are there already, as the attachment records know them."""

from cnictl.core import attachments, liveness
from cnictl.core.attachments import Record
from cnictl.core.errors import Problem
from cnictl.probe.pods import Pod


def existing_pod(text: str) -> Pod:
    """The live pod with an address or a container id (or an unambiguous start of one), of any network of ours.

    Raises Problem if there is none, several, or it is not live.
    """
    records = [record for network in attachments.networks() for record in attachments.all_records(network)]
    found = [one for one in records if text in one.addresses or one.container == text]
    found = found or [one for one in records if len(text) >= 4 and one.container.startswith(text)]
    if not found:
        raise Problem(f"no attachment has the address or container id {text}", "cnictl ipam list shows them")
    if len({one.container for one in found}) > 1:
        raise Problem(f"{text}: {len(found)} containers start so", "give more of the container id")
    verdict = liveness.judge(found[0])
    if verdict.state != liveness.LIVE or not found[0].netns:
        raise Problem(f"{text}: the attachment is {verdict.state}: {verdict.reason}", "cnictl ipam list")
    return _as_pod(found[0])


def neighbour_of(pod: Pod, network: str) -> Pod | None:
    """Another live pod of the network on this node, or None."""
    for record in attachments.all_records(network):
        if not record.netns or record.host_veth == pod.host_veth:
            continue  # one that another plugin made has no recorded namespace
        if liveness.judge(record).state == liveness.LIVE:
            return _as_pod(record)
    return None


def _as_pod(record: Record) -> Pod:
    if not record.addresses:
        raise Problem(f"container {record.container} has no address", "cnictl ipam list")
    return Pod(record.pod or record.container, record.netns, tuple(record.addresses), record.host_veth)
