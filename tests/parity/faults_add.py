"""List the faults around ADD. Each must end with the pod attached, or with ADD refused and nothing left."""

import select
import socket
from concurrent.futures import ThreadPoolExecutor

from tests.parity import answers, observe, packets
from tests.parity.answers import OK, Facts
from tests.parity.families import Family
from tests.parity.fault import (
    DUAL,
    IPV4,
    IPV6,
    NOTHING_LEFT,
    Fault,
    add,
    added,
    conf_of,
    refused_add,
    sends,
    stub_calls,
    stub_ipam,
    worst,
)
from tests.parity.places import Place
from tests.parity.scenario import POD


def _default_route_twice(place: Place, family: Family) -> Facts:
    conf = conf_of(family, ipam={"routes": [{"dst": net.anywhere} for net in family.nets]})
    facts = answers.outcome(add(place, "a", conf))
    routes = observe.own_routes(observe.take(place).pods["a"][1])
    return {**facts, "default routes": [route for route in routes if "/0 " in route]}


def _one_default(family: Family) -> list[str]:
    return sorted(f"{net.anywhere} via {net.gateway}" for net in family.nets)


def _impossible_route(place: Place, family: Family) -> Facts:
    far = {4: "192.0.2.1", 6: "2001:db8:fff::1"}
    routes = [{"dst": net.elsewhere, "gw": far[net.version]} for net in family.nets]
    return refused_add(place, conf_of(family, isDefaultGateway=None, ipam={"routes": routes}))


def _interface_there(place: Place, family: Family) -> Facts:
    place.ip("link add eth0 type veth peer name other0", netns="a")
    return refused_add(place, conf_of(family))


def _no_namespace(place: Place, family: Family) -> Facts:
    before = observe.take(place)
    answer = add(place, "a", conf_of(family), {"CNI_NETNS": "/run/netns/nowhere"})
    return {**answers.outcome(answer), "left": observe.left(before, observe.take(place), network_stays=False)}


def _ipam_fails(place: Place, family: Family) -> Facts:
    stub_ipam(
        place,
        "echo stub: cannot reach its store >&2",
        '[ "$CNI_COMMAND" = ADD ] || exit 0',
        'printf \'{"cniVersion": "1.0.0", "code": 123, "msg": "stub: no address today"}\'',
        "exit 1",
    )
    before = observe.take(place)
    answer = add(place, "a", conf_of(family, ipam={"type": "stub-ipam"}))
    return {
        **answers.outcome(answer),
        "left": observe.left(before, observe.take(place), network_stays=False),
        "calls of the IPAM plugin": stub_calls(place),
        "its message is passed on": b"no address today" in answer.stdout,
        "its stderr is passed on": b"cannot reach its store" in answer.stderr,
    }


def _ipam_answers_nonsense(place: Place, family: Family) -> Facts:
    stub_ipam(place, '[ "$CNI_COMMAND" = ADD ] && echo "{not json"', "exit 0")
    return refused_add(place, conf_of(family, ipam={"type": "stub-ipam"}))


def _at_once(place: Place, family: Family) -> Facts:
    conf = conf_of(family)
    with ThreadPoolExecutor(3) as pool:
        ended = list(pool.map(lambda pod: add(place, pod, conf), ("a", "b", "c")))
    now = observe.take(place, ("a", "b", "c"))
    macs = {
        interface["mac"]
        for answer in ended
        for interface in (answers.result_of(answer) or {}).get("interfaces", [])[:1]
    }
    bridge_mac = now.links.get("cni0", {}).get("address")
    given = [address for pod in now.pods for address in observe.addresses(now.pod_link(pod))]
    return {
        **worst(*ended),
        "bridge MACs in the results": "the bridge's" if macs == {bridge_mac} else "others",
        "addresses": len(set(given)),
    }


def _address_used_again(place: Place, family: Family) -> Facts:
    """Let pod b and the node send to pod a, then give a's address to pod c, which has another MAC."""
    conf = conf_of(family)
    added(place, "b", conf)
    result = added(place, "a", conf)
    address = str(result.get("ips", [{"address": family.nets[0].with_prefix(3)}])[0]["address"]).partition("/")[0]
    sends(place, "b", "a", address)
    sends(place, "", "a", address)
    place.call("DEL", "a", conf, result)
    facts = answers.outcome(add(place, "c", conf, {"CNI_ARGS": f"IgnoreUnknown=1;IP={address}"}))
    return {
        **facts,
        "first datagram from another pod": sends(place, "b", "c", address, 2.0),
        "first datagram from the node": sends(place, "", "c", address, 2.0),
    }


def _former_flows(place: Place, family: Family) -> Facts:
    """Send an answer to the masqueraded previous owner of an address; it must not reach pod c, the new owner."""
    (net,) = family.nets
    kind = socket.AF_INET6 if net.version == 6 else socket.AF_INET
    conf = conf_of(family, ipMasq=True)
    added(place, "b", conf)
    result = added(place, "a", conf)
    with packets.at(place, "outside", kind) as server, packets.at(place, "a", kind) as former:
        server.bind((net.outside, 5022))
        former.bind((net.at(3), 6000))
        former.sendto(b"from the former owner", (net.outside, 5022))
        if not select.select([server], [], [], 4)[0]:
            return {"outcome": "nothing arrives outside", "code": 0, "message": ""}
        _, source = server.recvfrom(64)
        place.call("DEL", "a", conf, result)
        facts = answers.outcome(add(place, "c", conf, {"CNI_ARGS": f"IgnoreUnknown=1;IP={net.at(3)}"}))
        if facts["outcome"] != OK:
            return facts
        sends(place, "c", "", net.gateway)
        with packets.at(place, "c", kind) as owner:
            owner.bind((net.at(3), 6000))
            server.sendto(b"for the former owner", source)
            reaches = bool(select.select([owner], [], [], 0.5)[0])
    return {**facts, "the new owner gets the previous owner's answers": reaches}


def _ipv6_off_in_the_pod(place: Place, family: Family) -> Facts:
    place.host.run("ip", "netns", "exec", "a", "sysctl", "-qw", "net.ipv6.conf.default.disable_ipv6=1")
    facts = answers.outcome(add(place, "a", conf_of(family)))
    return {**facts, "to gateway": sends(place, "a", "", family.nets[0].gateway)}


def _two_networks(place: Place, family: Family) -> Facts:
    """Give a pod an interface in each of two networks, and detach the second; the first must keep working."""
    (net,), (second,) = family.nets, family.second
    first_conf = conf_of(family)
    second_conf = conf_of(
        family,
        name="second",
        bridge="cni1",
        isDefaultGateway=None,
        isGateway=True,
        ipam={"ranges": [[{"subnet": second.subnet}]]},
    )
    ended = [add(place, "a", first_conf), add(place, "a", second_conf, ifname="eth1")]
    facts = worst(*ended)
    reached = [sends(place, "a", "", net.gateway), sends(place, "a", "", second.gateway)]
    result = answers.result_of(ended[1])
    gone = place.call("DEL", "a", second_conf, result, ifname="eth1")
    return {
        **facts,
        "to both gateways": reached,
        "DEL of the second": answers.outcome(gone, silent=True)["outcome"],
        "to gateway afterwards": sends(place, "a", "", net.gateway),
    }


FAULTS = (
    *(
        Fault(
            "isDefaultGateway with a default route in ipam",
            "ADD",
            {"outcome": OK, "default routes": _one_default(family)},
            _default_route_twice,
            family,
        )
        for family in (IPV4, IPV6, DUAL)
    ),
    *(
        Fault("a route that the kernel refuses", "ADD", NOTHING_LEFT, _impossible_route, family)
        for family in (IPV4, IPV6)
    ),
    Fault("the pod already has an interface of that name", "ADD", NOTHING_LEFT, _interface_there),
    Fault("the namespace doesn't exist", "ADD", NOTHING_LEFT, _no_namespace),
    Fault(
        "the IPAM plugin fails",
        "ADD",
        {
            **NOTHING_LEFT,
            "calls of the IPAM plugin": ["ADD", "DEL"],
            "its message is passed on": True,
            "its stderr is passed on": True,
        },
        _ipam_fails,
    ),
    Fault("the IPAM plugin returns invalid JSON", "ADD", NOTHING_LEFT, _ipam_answers_nonsense),
    Fault(
        "three ADDs at the same time on a new bridge",
        "ADD",
        {"outcome": OK, "bridge MACs in the results": "the bridge's", "addresses": 3},
        _at_once,
    ),
    *(
        Fault(
            "an address is reused immediately",
            "ADD",
            {"outcome": OK, "first datagram from another pod": POD, "first datagram from the node": POD},
            _address_used_again,
            family,
        )
        for family in (IPV4, IPV6)
    ),
    *(
        Fault(
            "an address whose previous owner had connections",
            "ADD",
            {"outcome": OK, "the new owner gets the previous owner's answers": False},
            _former_flows,
            family,
        )
        for family in (IPV4, IPV6)
    ),
    Fault("IPv6 is off in the pod", "ADD", {"outcome": OK, "to gateway": POD}, _ipv6_off_in_the_pod, IPV6),
    *(
        Fault(
            "two networks, two interfaces",
            "ADD",
            {"outcome": OK, "to both gateways": [POD, POD], "DEL of the second": OK, "to gateway afterwards": POD},
            _two_networks,
            family,
        )
        for family in (IPV4, IPV6)
    ),
)
