"""Find out why a ping failed. The evidence for each cause is kernel state or captured packets, never a guess.

The finders run in the order in which a packet meets their faults. The first finder that finds a fault returns the
cause. To add a cause, write a finder in `causes_local` or `causes_remote` and list it where a packet meets the fault.
"""

from collections.abc import Callable

from cnictl.node import hint
from cnictl.probe import causes_local, causes_remote
from cnictl.probe.failure import STAYS, Failure, FailureCause

Finder = Callable[[Failure], FailureCause | None]

_WITHIN_NODE: tuple[Finder, ...] = (
    causes_local.bridge_unfit,
    causes_local.port_unfit,
    causes_local.target_port_unfit,
    causes_local.no_such_pod,
    causes_local.pod_without_address,
    causes_local.diverted,
    causes_local.pod_without_route,
    causes_local.reverse_path,
    causes_local.dropped,
    causes_local.reply_refused_by_pod,
    causes_local.pod_silent,
)
_OUTWARD: tuple[Finder, ...] = (
    causes_local.bridge_unfit,
    causes_local.port_unfit,
    causes_local.pod_without_address,
    causes_local.pod_without_route,
    causes_local.forwarding_off,
    causes_local.diverted,
    causes_local.no_route,
    causes_local.neighbour_unresolved,
    causes_local.reverse_path,
    causes_local.dropped,
    causes_local.reply_refused_by_pod,
    causes_local.not_masqueraded,
)
_FROM_HOST_WITHIN: tuple[Finder, ...] = (
    causes_local.bridge_unfit,
    causes_local.target_port_unfit,
    causes_local.no_such_pod,
    causes_local.pod_without_address,
    causes_local.away_from_bridge,
    causes_local.dropped,
    causes_local.pod_silent,
)
_FROM_HOST_OUTWARD: tuple[Finder, ...] = (
    causes_local.no_route,
    causes_local.neighbour_unresolved,
    causes_local.reverse_path,
    causes_local.dropped,
)
_BEYOND: tuple[Finder, ...] = (
    causes_remote.peer_silent,
    causes_remote.peer_without_bridge,
    causes_remote.refused,
    causes_remote.reported_to_this_node,
    causes_remote.no_return_route,
    causes_remote.peer_forwarding_off,
    causes_remote.peer_drops,
    causes_remote.outside_silent,
)


OF_THIS_NODE = frozenset((
    "bridge-unfit", "port-unfit", "pod-without-route", "forwarding-off", "diverted", "no-route", "unclaimed",
    "reverse-path", "dropped-here", "no-masquerade", "no-address", "pod-link-down", "pod-silent",
    "pod-drops",
))  # fmt: skip
"""The names of causes that lie on this node."""

_LOOK_FURTHER = hint.advice("run cnictl doctor for more checks", because="the cause is not known")


def most_likely(failure: Failure) -> FailureCause:
    """Return the first fault on the packet's path."""
    within, outward = (_FROM_HOST_WITHIN, _FROM_HOST_OUTWARD) if failure.of_host else (_WITHIN_NODE, _OUTWARD)
    finders = within if failure.check in STAYS else outward
    if failure.check not in STAYS and failure.left_as and not failure.reply_came:
        finders += _BEYOND
    for find in finders:
        cause = find(failure)
        if cause is not None:
            return cause
    return unexplained(failure)


def unexplained(failure: Failure) -> FailureCause:
    """Return how far the packet got, if no finder knows the cause."""
    if failure.reply_came:
        words = "the reply reached this node, but not the pod"
    elif failure.left_as:
        words = f"the request left through {failure.route.dev} with source {failure.left_as}, and no reply came"
    elif failure.series.send_error:
        sender = "this host" if failure.of_host else "the pod"
        words = f"{sender} could not send: {failure.series.send_error}"
    elif failure.of_host:
        words = f"{failure.target} does not answer this host"
    elif failure.sightings:
        words = "the pod's request reached this node and went no further"
    else:
        words = "the request never left the pod"
    return FailureCause("unexplained", words, _LOOK_FURTHER)
