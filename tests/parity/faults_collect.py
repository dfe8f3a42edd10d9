"""List the faults around GC and STATUS: what GC must free and keep, and when a node is not ready."""

from tests.parity import answers, observe
from tests.parity.answers import OK, REFUSED, Facts
from tests.parity.cycle import marks_of
from tests.parity.families import Family
from tests.parity.fault import (
    IPV4,
    IPV6,
    Fault,
    add,
    added,
    conf_of,
    owned,
    restart,
    sends,
    span,
    stub_calls,
    stub_ipam,
)
from tests.parity.places import Json, Place
from tests.parity.scenario import POD

_LATER = {"cniVersion": "1.1.0"}


def _one_of_two(place: Place, family: Family) -> Facts:
    (net,) = family.nets
    conf = conf_of(family, ipMasq=True)
    added(place, "a", conf)
    before = observe.take(place)
    added(place, "b", conf)
    marks = marks_of(observe.take(place), place)["b"]
    answer = place.collect({**conf, **_LATER}, ("a",))
    return {
        **answers.outcome(answer, silent=True),
        "left": observe.left(before, observe.take(place), network_stays=True, marks=marks),
        "the valid one's leases": owned(place, "a"),
        "the valid one to gateway": sends(place, "a", "", net.gateway),
    }


def _vanished(place: Place, family: Family) -> Facts:
    conf = conf_of(family, ipMasq=True)
    before = observe.take(place)
    added(place, "a", conf)
    marks = marks_of(observe.take(place), place)["a"]
    restart(place, "a")
    answer = place.collect({**conf, **_LATER})
    return {
        **answers.outcome(answer, silent=True),
        "left": observe.left(before, observe.take(place), network_stays=True, marks=marks),
    }


def _another_network(place: Place, family: Family) -> Facts:
    """Call GC for one network while another network has a pod."""
    (second,) = family.second
    two = conf_of(family, name="second", bridge="cni1", ipam={"ranges": [[{"subnet": second.subnet}]]})
    added(place, "a", two)
    added(place, "b", conf_of(family))
    answer = place.collect({**conf_of(family), **_LATER})
    return {
        **answers.outcome(answer, silent=True),
        "freed": owned(place, "b") == [],
        "the other network's pod to gateway": sends(place, "a", "", second.gateway),
    }


def _delegated(place: Place, family: Family) -> Facts:
    """Call GC with addresses from another IPAM plugin that supports 1.1.0; that plugin must be called too."""
    (net,) = family.nets
    given = f'{{"cniVersion": "1.1.0", "ips": [{{"address": "{net.with_prefix(2)}", "gateway": "{net.gateway}"}}]}}'
    stub_ipam(
        place,
        '[ "$CNI_COMMAND" != VERSION ] || '
        'exec printf \'{"cniVersion": "1.1.0", "supportedVersions": ["1.0.0", "1.1.0"]}\'',
        f"[ \"$CNI_COMMAND\" != ADD ] || printf '%s' '{given}'",
    )
    conf = conf_of(family, cniVersion="1.1.0", ipam={"type": "stub-ipam"})
    before = observe.take(place)
    facts = answers.outcome(add(place, "a", conf))
    if facts["outcome"] != OK:
        return {**facts, "outcome": f"ADD was refused: {facts['message']}"}
    status = _status(place, conf)["outcome"]
    answer = place.collect(conf)
    return {
        **answers.outcome(answer, silent=True),
        "left": observe.left(before, observe.take(place), network_stays=True),
        "STATUS": status,
        "the IPAM plugin hears": sorted(set(stub_calls(place)) - {"VERSION"}),
    }


def _without_the_list(place: Place, family: Family) -> Facts:
    conf = {**conf_of(family), **_LATER}
    added(place, "a", conf_of(family))
    answer = place.call("GC", "", conf)
    return {**answers.outcome(answer, silent=True), "leases": owned(place, "a")}


def _status(place: Place, conf: Json) -> Facts:
    return answers.outcome(place.call("STATUS", "", {**conf, **_LATER}), silent=True)


def _full(place: Place, family: Family) -> Facts:
    conf = conf_of(family, ipam=span(family, 2, 2))
    added(place, "a", conf)
    return _status(place, conf)


def _full_of_vanished(place: Place, family: Family) -> Facts:
    conf = conf_of(family, ipam=span(family, 2, 2))
    added(place, "a", conf)
    restart(place, "a")
    return _status(place, conf)


def _no_bridge(place: Place, family: Family) -> Facts:
    place.ip("link add cni0 type veth peer name cni0-peer")
    return _status(place, conf_of(family))


def _forwarding_off(place: Place, family: Family) -> Facts:
    conf = conf_of(family)
    added(place, "a", conf)
    switch = "net.ipv6.conf.all.forwarding" if family is IPV6 else "net.ipv4.ip_forward"
    place.host.run("sysctl", "-qw", f"{switch}=0")
    return _status(place, conf)


def _fresh(place: Place, family: Family) -> Facts:
    return _status(place, conf_of(family))


FAULTS = (
    Fault(
        "one of two attachments is no longer valid",
        "GC",
        {"outcome": OK, "left": [], "the valid one's leases": ["10.22.0.2"], "the valid one to gateway": POD},
        _one_of_two,
    ),
    Fault(
        "one of two attachments is no longer valid",
        "GC",
        {"outcome": OK, "left": [], "the valid one's leases": ["2001:db8:22::2"], "the valid one to gateway": POD},
        _one_of_two,
        IPV6,
    ),
    *(Fault("a pod vanished", "GC", {"outcome": OK, "left": []}, _vanished, family) for family in (IPV4, IPV6)),
    Fault(
        "another network has a pod",
        "GC",
        {"outcome": OK, "freed": True, "the other network's pod to gateway": POD},
        _another_network,
    ),
    Fault("without cni.dev/valid-attachments", "GC", {"outcome": REFUSED, "leases": ["10.22.0.2"]}, _without_the_list),
    *(Fault("the range is full", "STATUS", {"outcome": REFUSED, "code": 50}, _full, family) for family in (IPV4, IPV6)),
    Fault("the range is full of pods that vanished", "STATUS", {"outcome": OK}, _full_of_vanished),
    Fault("a link that is not a bridge has the bridge's name", "STATUS", {"outcome": REFUSED, "code": 50}, _no_bridge),
    *(
        Fault("forwarding was turned off", "STATUS", {"outcome": REFUSED, "code": 51}, _forwarding_off, family)
        for family in (IPV4, IPV6)
    ),
    *(Fault("on a fresh node", "STATUS", {"outcome": OK}, _fresh, family) for family in (IPV4, IPV6)),
)
