"""Ping one address as `test-connectivity` does, and find the cause if it does not answer."""

from collections.abc import Callable, Sequence
from contextlib import closing

from cnictl.node.spec.node_spec import NodeSpec, by_family, is_ipv6
from cnictl.probe.capture import Capture
from cnictl.probe.checks import CheckResult, companions, judge
from cnictl.probe.failure import EXTERNAL
from cnictl.probe.follow_up import ask_on, ask_outside
from cnictl.probe.host import Host
from cnictl.probe.icmp import Refusal, echo_socket, ping
from cnictl.probe.pods import CheckedPod
from cnictl.probe.targets import Targets, Wanted

_COUNT, _INTERVAL, _TIMEOUT = 2, 0.1, 0.5


def part_for(spec: NodeSpec, address: str) -> NodeSpec | None:
    """Return the node's spec in the family of an address; None if the node does not have that family."""
    return next((part for part in by_family(spec) if is_ipv6(part.subnet) == is_ipv6(address)), None)


def check_one(
    spec: NodeSpec,
    sender: CheckedPod,
    address: str,
    to_pod: CheckedPod | None,
    on_step: Callable[[str], None],
    refusals: Sequence[Refusal] = (),
) -> CheckResult | None:
    """Return the result of pings from `sender` to an address; None if the node does not have its family.

    A sender without a namespace is this host; its one address is the source of the pings. `to_pod`: the pod of this
    node that has the address. `refusals`: the ICMP errors that earlier pings got; a router limits how many it sends.
    """
    part = part_for(spec, address)
    if part is None:
        return None
    host = Host(part, spec)
    ipv6 = is_ipv6(address)
    with closing(Capture()) as capture, echo_socket(sender.netns, ipv6) as inside, echo_socket("", ipv6) as own:
        outside = own if sender.netns else inside
        targets = Targets(part, host, to_pod, Wanted(_COUNT, _TIMEOUT), inside, outside)
        planned = targets.check_of(address)
        assert planned.series is not None
        on_step(f"pinging {address} to find the cause")
        ping([planned.series, *companions([planned])], _INTERVAL, _TIMEOUT, [planned.series])
        at = planned.at_peer
        if at is not None and at.expiring is not None and not planned.series.heard:
            ask_on([(planned.series, at)], None, on_step)
        planned.series.refusals[:0] = refusals
        if planned.check == EXTERNAL and not planned.series.heard:
            ask_outside([planned.series], on_step)
        return judge(planned, sender, host, capture)
