"""List the changes after a correct ADD that CHECK must report, and those that it must accept."""

from collections.abc import Callable

from tests.parity import answers, observe
from tests.parity.answers import OK, REFUSED, Facts
from tests.parity.families import Family
from tests.parity.fault import IPV4, IPV6, Fault, added, conf_of
from tests.parity.places import Json, Place

Break = Callable[[Place, Family], None]


def _after(harm: Break, **change: object) -> Callable[[Place, Family], Facts]:
    def act(place: Place, family: Family) -> Facts:
        conf = conf_of(family, **change)
        added(place, "b", conf)
        result = added(place, "a", conf)
        if not result:
            return {"outcome": "not reached: ADD was refused"}
        whole = answers.outcome(place.call("CHECK", "a", conf, result), silent=True)
        if whole["outcome"] != OK:
            return {**whole, "outcome": f"fails before anything is broken: {whole['message']}"}
        harm(place, family)
        return answers.outcome(place.call("CHECK", "a", conf, result), silent=True)

    return act


def _in_pod(*lines: str) -> Break:
    def harm(place: Place, family: Family) -> None:
        (net,) = family.nets
        words = {"anywhere": net.anywhere, "other": net.at(9), "address": net.with_prefix(3), "gateway": net.gateway}
        place.ip(*(line.format_map(words) for line in lines), netns="a")

    return harm


def _on_host(*lines: str) -> Break:
    def harm(place: Place, family: Family) -> None:
        host_end = observe.take(place).host_end("a")
        assert host_end is not None
        words = {"veth": host_end["ifname"], "gateway": family.nets[0].with_prefix(1)}
        place.ip(*(line.format_map(words) for line in lines))

    return harm


def _port(*words: str) -> Break:
    def harm(place: Place, _: Family) -> None:
        host_end = observe.take(place).host_end("a")
        assert host_end is not None
        place.host.run("bridge", "link", "set", "dev", host_end["ifname"], *words)

    return harm


def _flush_rules(place: Place, _: Family) -> None:
    place.host.run("nft", "flush", "ruleset")


def _drop_lease(place: Place, family: Family) -> None:
    (net,) = family.nets
    place.host.path(f"/var/lib/cni/networks/parity/{net.at(3)}").unlink()


def _other_lease(place: Place, family: Family) -> None:
    (net,) = family.nets
    place.host.path(f"/var/lib/cni/networks/parity/{net.at(3)}").write_bytes(b"other\r\neth0")


_LOW_PORT = ("link add low0 address 02:00:00:00:00:01 type veth peer name low1", "link set low0 master cni0")

_BROKEN: tuple[tuple[str, Break, Json], ...] = (
    ("the default route is gone", _in_pod("route del {anywhere} via {gateway}"), {}),
    ("the default route has another gateway", _in_pod("route replace {anywhere} via {other} dev eth0"), {}),
    ("the pod's address is gone", _in_pod("address del {address} dev eth0"), {}),
    ("the bridge's gateway address is gone", _on_host("address del {gateway} dev cni0"), {}),
    ("the masquerade rules are gone", _flush_rules, {"ipMasq": True}),
    ("the lease is gone", _drop_lease, {}),
    ("the lease belongs to another container", _other_lease, {}),
)
"""What CHECK must report in each family."""

_BROKEN_LINKS: tuple[tuple[str, Break, Json], ...] = (
    ("the pod's interface is gone", _in_pod("link del eth0"), {}),
    ("the pod's interface is down", _in_pod("link set eth0 down"), {}),
    ("the pod's MAC has changed", _in_pod("link set eth0 address 02:00:5e:00:53:77"), {}),
    ("the host end is down", _on_host("link set {veth} down"), {}),
    ("the host end is not on the bridge", _on_host("link set {veth} nomaster"), {}),
    ("the bridge is down", _on_host("link set cni0 down"), {}),
    ("hairpin is off", _port("hairpin", "off"), {"hairpinMode": True}),
    ("the port is no longer isolated", _port("isolated", "off"), {"portIsolation": True}),
    ("the bridge is no longer promiscuous", _on_host("link set cni0 promisc off"), {"promiscMode": True}),
    ("the MAC guard is gone", _flush_rules, {"macspoofchk": True}),
)
"""What CHECK must report, and what does not depend on the family."""

FAULTS = (
    *(
        Fault(name, "CHECK", {"outcome": REFUSED}, _after(harm, **change), family)
        for name, harm, change in _BROKEN
        for family in (IPV4, IPV6)
    ),
    *(Fault(name, "CHECK", {"outcome": REFUSED}, _after(harm, **change)) for name, harm, change in _BROKEN_LINKS),
    Fault(
        "without isGateway a port with a lower MAC joins the bridge",
        "CHECK",
        {"outcome": OK},
        _after(_on_host(*_LOW_PORT), isDefaultGateway=None),
    ),
    Fault("a port with a lower MAC joins the bridge", "CHECK", {"outcome": OK}, _after(_on_host(*_LOW_PORT))),
    Fault(
        "the pod has an additional route",
        "CHECK",
        {"outcome": OK},
        _after(_in_pod("route add 192.0.2.0/24 via {other}")),
    ),
)
