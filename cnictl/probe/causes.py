"""Why a ping failed: each cause is a look at what the kernel holds or the wire showed, never a guess from the name.

Finders are asked in the order in which a packet meets the faults they look for; the first that finds its fault names
it. To add a cause, write a finder in `here` or `beyond` and put it where a packet would meet it.
"""

from collections.abc import Callable

from cnictl.node import hint
from cnictl.probe import causes_local, causes_remote
from cnictl.probe.failure import STAYS, Cause, Failure

Finder = Callable[[Failure], Cause | None]

_WITHIN_NODE: tuple[Finder, ...] = (
    causes_local.bridge_unfit,
    causes_local.port_unfit,
    causes_local.no_such_pod,
    causes_local.diverted,
    causes_local.pod_without_route,
    causes_local.reverse_path,
    causes_local.dropped,
)
_OUTWARD: tuple[Finder, ...] = (
    causes_local.bridge_unfit,
    causes_local.port_unfit,
    causes_local.pod_without_route,
    causes_local.forwarding_off,
    causes_local.diverted,
    causes_local.no_route,
    causes_local.neighbour_unresolved,
    causes_local.reverse_path,
    causes_local.dropped,
    causes_local.not_masqueraded,
)
_BEYOND: tuple[Finder, ...] = (
    causes_remote.peer_silent,
    causes_remote.peer_without_bridge,
    causes_remote.refused,
    causes_remote.told_to_the_node,
    causes_remote.no_return_route,
    causes_remote.peer_forwarding_off,
    causes_remote.peer_drops,
    causes_remote.outside_silent,
)


_LOOK_FURTHER = hint.advice("cnictl doctor looks further", because="what is wrong is not known")


def most_likely(failure: Failure) -> Cause:
    """Return the first fault found, in the order in which the packet meets them."""
    finders = _WITHIN_NODE if failure.check in STAYS else _OUTWARD
    if failure.left_as and not failure.reply_came:
        finders += _BEYOND
    for find in finders:
        cause = find(failure)
        if cause is not None:
            return cause
    return unexplained(failure)


def unexplained(failure: Failure) -> Cause:
    """Return how far the request got, if no finder knows the cause."""
    if failure.reply_came:
        words = "the reply came back to this node and did not reach the pod"
    elif failure.left_as:
        words = f"the request left by {failure.route.dev} as {failure.left_as}, and nothing came back"
    elif failure.series.send_error:
        words = f"the pod could not send: {failure.series.send_error}"
    elif failure.sightings:
        words = "the request reached this node from the pod and went no further"
    else:
        words = "the request never left the pod"
    return Cause("unexplained", words, _LOOK_FURTHER)
