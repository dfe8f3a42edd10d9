"""Run a scenario on one side and return the facts of each verb.

Two pods are attached, observed, sent from, checked, detached and garbage-collected. Pod b is attached first and keeps
the network in use. The facts are about pod a.
"""

import ipaddress
from typing import Any

from tests.kernel.plugin.client import Answer
from tests.parity import answers, observe, packets
from tests.parity.answers import REFUSED, Facts
from tests.parity.families import Net
from tests.parity.observe import Snapshot
from tests.parity.places import Json, Place, inside
from tests.parity.rules import OTHER_POD
from tests.parity.scenario import NODE, NOTHING, POD, Scenario

LAST = b"last"


def run(scenario: Scenario, place: Place) -> dict[str, Facts]:
    """Return the facts of each verb in the scenario."""
    prepare(scenario, place)
    facts = {"VERSION": version(place)}
    facts["STATUS"] = answers.outcome(place.call("STATUS", "", _later(scenario, "a")), silent=True)
    bare = observe.take(place)
    if scenario.variant.must == REFUSED:
        answer = _add(scenario, place, "a")
        facts["ADD"] = {**answers.outcome(answer), "left": observe.left(bare, observe.take(place), network_stays=False)}
        answer = place.call("DEL", "a", scenario.conf("a"), extra=scenario.environment("a"))
        facts["DEL"] = {
            **answers.outcome(answer, silent=True),
            "left": observe.left(bare, observe.take(place), network_stays=True),
        }
        return facts
    other = _add(scenario, place, "b")
    before = observe.take(place)
    answer = _add(scenario, place, "a")
    after = observe.take(place)
    result, other_result = answers.result_of(answer), answers.result_of(other)
    facts["ADD"] = answers.outcome(answer)
    if result is None:
        facts["ADD"]["left"] = observe.left(before, after, network_stays=True)
    else:
        facts["ADD"] |= attached(scenario, place, result, after) | sent(scenario, place, after)
    facts["CHECK"] = _outcome_if(result, place, "CHECK", scenario)
    marks = marks_of(after, place)
    facts["DEL"] = _outcome_if(result, place, "DEL", scenario)
    gone = observe.take(place)
    facts["DEL"]["left"] = observe.left(before, gone, network_stays=True, marks=marks["a"])
    facts["DEL"]["again"] = answers.outcome(
        place.call("DEL", "a", scenario.conf("a"), result, scenario.environment("a")), silent=True
    )["outcome"]
    facts["DEL"] |= {f"{OTHER_POD}{key}": value for key, value in sent_to_gateway(scenario, place, gone).items()}
    collected = answers.outcome(place.collect(_later(scenario, "b")), silent=True)
    facts["GC"] = {**collected, "left": []}
    facts["GC"]["left"] = observe.left(bare, observe.take(place), network_stays=True, marks=marks["b"])
    if other_result is None:
        facts["GC"]["outcome"] = "not reached: ADD was refused"
    return facts


def _later(scenario: Scenario, pod: str) -> Json:
    """Return the conf for the verbs that CNI 1.1.0 added."""
    conf = scenario.conf(pod)
    return conf if scenario.variant.own_version else {**conf, "cniVersion": "1.1.0"}


def prepare(scenario: Scenario, place: Place) -> None:
    """Make the links and files that the scenario's host has before the first call."""
    lines = scenario.variant.before(scenario.family)
    if lines:
        place.ip(*lines)
    for path, text in scenario.variant.files.items():
        inner = place.host.path(path)
        inner.parent.mkdir(parents=True, exist_ok=True)
        inner.write_bytes(text.encode())


def version(place: Place) -> Facts:
    """Return the facts of VERSION."""
    answer = place.call("VERSION", "", {"cniVersion": "1.0.0"})
    supported = (answers.result_of(answer) or {}).get("supportedVersions", [])
    return {**answers.outcome(answer), "supported": sorted(supported)}


def _add(scenario: Scenario, place: Place, pod: str) -> Answer:
    return place.call("ADD", pod, scenario.conf(pod), extra=scenario.environment(pod))


def _outcome_if(result: Json | None, place: Place, verb: str, scenario: Scenario) -> Facts:
    if result is None and verb == "CHECK":
        return {"outcome": "not reached: ADD was refused", "code": 0, "message": ""}
    return answers.outcome(place.call(verb, "a", scenario.conf("a"), result, scenario.environment("a")), silent=True)


def attached(scenario: Scenario, place: Place, result: Json, seen: Snapshot) -> Facts:
    """Return links, addresses, routes, flags, settings and leases after an ADD, and the false parts of its result."""
    name = scenario.conf("a").get("bridge", "cni0")
    bridge, host_end, pod = seen.links.get(name), seen.host_end("a"), seen.pod_link("a")
    port = (host_end or {}).get("linkinfo", {}).get("info_slave_data", {})
    facts: Facts = answers.result_facts(result, seen, "a")
    facts["result.untrue"] = answers.lies(result, seen, "a")
    facts |= {
        "bridge.name": (host_end or {}).get("master"),
        "bridge.addresses": observe.addresses(bridge),
        "bridge.tentative": observe.tentative(bridge),
        "bridge.mtu": (bridge or {}).get("mtu"),
        "bridge.up": "UP" in (bridge or {}).get("flags", ()),
        "bridge.promiscuous": bool((bridge or {}).get("promiscuity")),
        "bridge.filters_vlans": bool((bridge or {}).get("linkinfo", {}).get("info_data", {}).get("vlan_filtering")),
        "host.up": "UP" in (host_end or {}).get("flags", ()),
        "host.mtu": (host_end or {}).get("mtu"),
        "host.kind": (host_end or {}).get("linkinfo", {}).get("info_kind"),
        "host.hairpin": port.get("hairpin"),
        "host.isolated": port.get("isolated"),
        "pod.up": "UP" in (pod or {}).get("flags", ()),
        "pod.mtu": (pod or {}).get("mtu"),
        "pod.mac": (pod or {}).get("address"),
        "pod.addresses": sorted(observe.addresses(pod)),
        "pod.addresses in order": observe.addresses(pod),
        "pod.tentative": observe.tentative(pod),
        "pod.link_local_ready": observe.link_local_ready(place, "a"),
        "pod.routes": observe.own_routes(seen.pods["a"][1]),
        "node.leases": {address: text for address, text in observe.leases(seen).items() if text.startswith("pod-a")},
        "node.leases_elsewhere": {
            address: text
            for address, text in observe.leases(seen, "elsewhere/parity").items()
            if text.startswith("pod-a")
        },
        "node.masquerade": observe.masquerade_backends(seen),
        "node.forwards": forwards(place),
        "node.accepts_ra": observe.sysctl(place.netns, f"ipv6/conf/{name}/accept_ra") not in ("0", ""),
    }
    facts["pod.accepts_ra"] = observe.sysctl(place.pod_netns("a"), "ipv6/conf/eth0/accept_ra") not in ("0", "")
    facts["pod.accept_dad"] = observe.sysctl(place.pod_netns("a"), "ipv6/conf/eth0/accept_dad")
    if scenario.variant.needs == "vlan":
        facts["host.vlans"] = _vlans(place, host_end)
    return facts


def forwards(place: Place) -> list[str]:
    """Return the address families whose packets the host forwards."""
    switches = (("IPv4", "ipv4/ip_forward"), ("IPv6", "ipv6/conf/all/forwarding"))
    return [family for family, switch in switches if observe.sysctl(place.netns, switch) == "1"]


def _vlans(place: Place, host_end: Json | None) -> list[str]:
    if host_end is None:
        return []
    with inside(place.netns):
        said: list[Json] = observe.read_json("bridge", "-j", "vlan", "show", "dev", host_end["ifname"])
    return [" ".join([str(vlan["vlan"]), *vlan.get("flags", [])]) for link in said for vlan in link.get("vlans", [])]


def sent(scenario: Scenario, place: Place, seen: Snapshot) -> Facts:
    """Return the source that each destination sees on pod a's datagrams, and the facts of the scenario's probes."""
    facts = sent_to_gateway(scenario, place, seen, "a")
    others = observe.addresses(seen.pod_link("b"))
    for net in scenario.family.nets:
        own = _of_family(observe.addresses(seen.pod_link("a")), net)
        other = _of_family(others, net)
        if own and other:
            facts[f"to pod, IPv{net.version}"] = _who(packets.source_seen(place, "a", "b", other), own, net)
        if own:
            facts[f"to outside, IPv{net.version}"] = _who(
                packets.source_seen(place, "a", "outside", net.outside), own, net
            )
    for probe in scenario.variant.probes:
        facts |= _PROBES[probe](place, seen)
    return facts


def sent_to_gateway(scenario: Scenario, place: Place, seen: Snapshot, pod: str = "b") -> Facts:
    """Return which source the gateway sees on a pod's datagrams, for each of the pod's families."""
    facts = {}
    for net in scenario.family.nets:
        own = _of_family(observe.addresses(seen.pod_link(pod)), net)
        if own:
            gateway = _gateway(scenario, seen, net, own)
            facts[f"to gateway, IPv{net.version}"] = _who(packets.source_seen(place, pod, "", gateway), own, net)
    return facts


def _gateway(scenario: Scenario, seen: Snapshot, net: Net, own: str) -> str:
    """Return the bridge's address on the pod's subnet, or the subnet's first address if the bridge has none."""
    for name in (scenario.conf("a").get("bridge", "cni0"), f"{scenario.conf('a').get('bridge', 'cni0')}.100"):
        for address in observe.addresses(seen.links.get(name)):
            interface = ipaddress.ip_interface(address)
            if ipaddress.ip_address(own) in interface.network:
                return str(interface.ip)
    return net.gateway


def _of_family(listed: list[str], net: Net) -> str:
    return next((address.partition("/")[0] for address in listed if (":" in address) == (net.version == 6)), "")


def _who(source: str, own: str, net: Net) -> str:
    if source == own:
        return POD
    if source == net.node:
        return NODE
    return source if "." in source or ":" in source else NOTHING


def marks_of(seen: Snapshot, place: Place) -> dict[str, list[str]]:
    """Return the addresses, the container ID and the host veth by which rules can name each pod's attachment."""
    marks = {}
    for pod in seen.pods:
        host_end = seen.host_end(pod)
        plain = [address.partition("/")[0] for address in observe.addresses(seen.pod_link(pod))]
        marks[pod] = [*plain, place.pods[pod].container, *([host_end["ifname"]] if host_end else [])]
    return marks


def _mac(seen: Snapshot, pod: str) -> bytes:
    link = seen.pod_link(pod)
    return bytes.fromhex(link["address"].replace(":", "")) if link else bytes(6)


def _hairpin(place: Place, seen: Snapshot) -> Facts:
    """Return whether a pod's broadcast comes back to it. The other pod sends the last frame, which ends the wait."""
    if seen.pod_link("a") is None or seen.pod_link("b") is None:
        return {}
    with (
        packets.Frames(place, ("a", "eth0"), ("a", "eth0")) as own,
        packets.Frames(place, ("b", "eth0"), ("a", "eth0")) as other,
    ):
        own.send(b"mine", _mac(seen, "a"))
        other.send(LAST, _mac(seen, "b"))
        return {"frames.come_back": "mine" in own.arrived(LAST)}


def _spoof(place: Place, seen: Snapshot) -> Facts:
    """Return whether a frame with a forged source MAC reaches the other pod. An honest frame ends the wait."""
    if seen.pod_link("a") is None or seen.pod_link("b") is None:
        return {}
    with packets.Frames(place, ("a", "eth0"), ("b", "eth0")) as frames:
        frames.send(b"spoofed", b"\x02\x00\x5e\x00\x53\xee")
        frames.send(LAST, _mac(seen, "a"))
        marks = frames.arrived(LAST)
    return {"frames.with_another_mac": "spoofed" in marks, "frames.honest": LAST.decode() in marks}


def _layer2(place: Place, seen: Snapshot) -> Facts:
    """Return whether a frame reaches the other pod."""
    if seen.pod_link("a") is None or seen.pod_link("b") is None:
        return {}
    with packets.Frames(place, ("a", "eth0"), ("b", "eth0")) as frames:
        frames.send(LAST, _mac(seen, "a"))
        return {"frames.reach_the_other_pod": bool(frames.arrived(LAST))}


_PROBES: dict[str, Any] = {"hairpin": _hairpin, "spoof": _spoof, "layer2": _layer2}
