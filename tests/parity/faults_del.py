"""List the faults around DEL, which must succeed and leave nothing of the attachment.

Most of them use masquerade, because plugins most often leave its rules behind.
"""

from collections.abc import Callable

from tests.parity import answers, observe
from tests.parity.answers import OK, Facts
from tests.parity.cycle import marks_of
from tests.parity.families import Family
from tests.parity.fault import DUAL, IPV4, IPV6, Fault, added, conf_of, owned, restart, sends, vanish
from tests.parity.places import Place
from tests.parity.scenario import POD

_GONE: Facts = {"outcome": OK, "left": []}


def _after(
    harm: Callable[[Place], None], netns: str | None = None, prev: bool = True, **change: object
) -> Callable[[Place, Family], Facts]:
    """Return steps that attach a pod, do harm, call DEL (with `change` merged into its conf), and observe."""

    def act(place: Place, family: Family) -> Facts:
        conf = conf_of(family, ipMasq=True)
        before = observe.take(place)
        result = added(place, "a", conf)
        marks = marks_of(observe.take(place), place)["a"]
        harm(place)
        extra = {} if netns is None else {"CNI_NETNS": netns}
        answer = place.call("DEL", "a", {**conf, **change}, result if prev else None, extra)
        facts = answers.outcome(answer, silent=True)
        if not result:
            facts["outcome"] = "not reached: ADD was refused"
        return {**facts, "left": observe.left(before, observe.take(place), network_stays=True, marks=marks)}

    return act


def _nothing(_: Place) -> None:
    pass


def _ip(*lines: str, netns: str = "") -> Callable[[Place], None]:
    return lambda place: place.ip(*lines, netns=netns)


def _run(*argv: str) -> Callable[[Place], None]:
    def harm(place: Place) -> None:
        place.host.run(*argv)

    return harm


def _last_of_the_network(place: Place, family: Family) -> Facts:
    conf = conf_of(family, ipMasq=True)
    before = observe.take(place)
    result = added(place, "a", conf)
    marks = marks_of(observe.take(place), place)["a"]
    facts = answers.outcome(place.call("DEL", "a", conf, result), silent=True)
    after = observe.take(place)
    return {
        **facts,
        "left": observe.left(before, after, network_stays=True, marks=marks),
        "masquerade after the last DEL": observe.masquerade_backends(after),
    }


def _never_added(place: Place, family: Family) -> Facts:
    before = observe.take(place)
    answer = place.call("DEL", "a", conf_of(family, ipMasq=True))
    return {
        **answers.outcome(answer, silent=True),
        "left": observe.left(before, observe.take(place), network_stays=False),
    }


def _late(place: Place, family: Family) -> Facts:
    """Call DEL for pod a a second time, after pod c got its address."""
    (net,) = family.nets
    conf = conf_of(family, ipMasq=True)
    result = added(place, "a", conf)
    place.call("DEL", "a", conf, result)
    added(place, "c", conf, {"CNI_ARGS": f"IgnoreUnknown=1;IP={net.at(2)}"})
    answer = place.call("DEL", "a", conf, result)
    return {
        **answers.outcome(answer, silent=True),
        "the new owner's leases": owned(place, "c"),
        "the new owner to gateway": sends(place, "c", "", net.gateway),
    }


def _path_used_again(place: Place, family: Family) -> Facts:
    """Call DEL for pod a when another container has its namespace's path and interface name."""
    (net,) = family.nets
    conf = conf_of(family)
    result = added(place, "a", conf)
    restart(place, "a")
    other = {"CNI_CONTAINERID": "pod-other"}
    added(place, "a", conf, other)
    answer = place.call("DEL", "a", conf, result)
    return {
        **answers.outcome(answer, silent=True),
        "the other container to gateway": sends(place, "a", "", net.gateway),
    }


FAULTS = (
    *(Fault("without CNI_NETNS", "DEL", _GONE, _after(_nothing, netns=""), family) for family in (IPV4, IPV6, DUAL)),
    *(
        Fault("the namespace vanished", "DEL", _GONE, _after(lambda place: vanish(place, "a")), family)
        for family in (IPV4, IPV6, DUAL)
    ),
    *(
        Fault("the interface is gone", "DEL", _GONE, _after(_ip("link del eth0", netns="a")), family)
        for family in (IPV4, IPV6)
    ),
    *(
        Fault("the addresses are gone", "DEL", _GONE, _after(_ip("address flush dev eth0", netns="a")), family)
        for family in (IPV4, IPV6)
    ),
    *(
        Fault("the rules were flushed", "DEL", _GONE, _after(_run("nft", "flush", "ruleset")), family)
        for family in (IPV4, IPV6)
    ),
    Fault("the bridge is gone", "DEL", _GONE, _after(_ip("link del cni0"))),
    Fault("without prevResult", "DEL", _GONE, _after(_nothing, prev=False)),
    Fault("the conf no longer says ipMasq", "DEL", _GONE, _after(_nothing, ipMasq=False)),
    Fault(
        "the conf has another subnet",
        "DEL",
        _GONE,
        _after(_nothing, ipam={"type": "host-local", "ranges": [[{"subnet": "10.24.0.0/24"}]]}),
    ),
    Fault("the conf names another bridge", "DEL", _GONE, _after(_nothing, bridge="br-new")),
    Fault("the lease store is gone", "DEL", _GONE, _after(_run("rm", "-r", "/var/lib/cni"))),
    Fault("the pod was never added", "DEL", _GONE, _never_added),
    *(Fault("the network's last pod", "DEL", _GONE, _last_of_the_network, family) for family in (IPV4, IPV6)),
    Fault(
        "a second DEL after another pod got the address",
        "DEL",
        {"outcome": OK, "the new owner's leases": ["10.22.0.2"], "the new owner to gateway": POD},
        _late,
    ),
    Fault(
        "another container now has the namespace's path",
        "DEL",
        {"outcome": OK, "the other container to gateway": POD},
        _path_used_again,
    ),
)
