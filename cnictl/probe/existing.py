"""Find existing pods by their attachment records."""

from collections.abc import Sequence

from cnictl.core import attachments, liveness
from cnictl.core.attachments import Record
from cnictl.core.errors import Problem
from cnictl.node.spec import pod_names
from cnictl.node.spec.pod_names import Names
from cnictl.probe.pods import CheckedPod


def existing_pod(text: str) -> CheckedPod:
    """Return the live pod with an address, name or container id (or the beginning of an id), of any cnictl network.

    Raises Problem if no pod or several pods match, or the pod is not live.
    """
    records = known_as(text)
    if not records:
        raise Problem(f"no attachment has the address, pod name or container id {text}",
                      "cnictl pod list shows them")  # fmt: skip
    verdicts = [(record, liveness.judge(record)) for record in records]
    live = [record for record, verdict in verdicts if verdict.state == liveness.LIVE and record.netns]
    if len({record.container for record in live}) > 1:
        listed = ", ".join(f"{record.pod or record.container} at {' '.join(record.addresses)}" for record in live)
        raise Problem(f"{text}: {len(live)} live pods have this name: {listed}", f"name one: {one_of(live)}")
    if not live:
        verdict = verdicts[0][1]
        raise Problem(f"{text}: the attachment is {verdict.state}: {verdict.reason}", "cnictl ipam list")
    return _as_pod(live[0])


def one_of(records: Sequence[Record]) -> str:
    """Return texts that each name one pod only: `namespace/name`, or an address where pods share that too."""
    names = [record.pod for record in records]
    return " or ".join(
        record.pod
        if "/" in record.pod and names.count(record.pod) == 1
        else next(iter(record.addresses), record.container)
        for record in records
    )


def known_as(text: str) -> list[Record]:
    """Return the attachments of this node that `text` may name."""
    records = list(attachments.every_record())
    return pod_names.named(text, records, _names)


def _names(record: Record) -> Names:
    return Names(tuple(record.addresses), record.pod, record.container)


def neighbour_of(pod: CheckedPod, network: str) -> CheckedPod | None:
    """Return another live pod of the network on this node, or None."""
    for record in attachments.all_records(network):
        if not record.netns or record.host_veth == pod.host_veth:
            continue  # another plugin made it: its namespace is not recorded
        if liveness.judge(record).state == liveness.LIVE:
            return _as_pod(record)
    return None


def _as_pod(record: Record) -> CheckedPod:
    if not record.addresses:
        raise Problem(f"container {record.container} has no address", "cnictl ipam list")
    return CheckedPod(
        record.pod or record.container, record.netns, tuple(record.addresses), record.host_veth, ifname=record.ifname
    )
