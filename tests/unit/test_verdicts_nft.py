"""What nftables rules do to pods' packets, and where accept rules belong among them."""

from typing import Any

import pytest

from cnictl.node.host import firewall
from cnictl.node.host.verdicts import nft, places
from cnictl.node.host.verdicts.model import Chain, Packets, drops, walk
from cnictl.node.host.verdicts.pods import traffic
from cnictl.node.resources.forward_nft import base_chains
from cnictl.node.spec.node_spec import NodeSpec, Peer

SPEC = NodeSpec(("10.244.0.0/24",), ("10.244.0.0/20",), peers=(Peer("10.244.1.0/24", "10.0.10.51"),))
Json = dict[str, Any]

DROP, ACCEPT, RETURN = {"drop": None}, {"accept": None}, {"return": None}
REJECT = {"reject": {"type": "icmpx", "expr": "admin-prohibited"}}


def chain(table: str, name: str, policy: str = "accept", hook: str = "forward", family: str = "inet") -> Json:
    base = {"hook": hook, "policy": policy, "prio": 0} if hook else {}
    return {"chain": {"family": family, "table": table, "name": name, **base}}


def rule(name: str, *statements: Json, family: str = "inet", comment: str = "") -> Json:
    said = {"comment": comment} if comment else {}
    return {"rule": {"family": family, "table": "a", "chain": name, "handle": 1, "expr": list(statements), **said}}


def match(left: Json, right: Any, op: str = "==") -> Json:
    return {"match": {"op": op, "left": left, "right": right}}


def incoming(name: Any, op: str = "==") -> Json:
    return match({"meta": {"key": "iifname"}}, name, op)


def outgoing(name: Any, op: str = "==") -> Json:
    return match({"meta": {"key": "oifname"}}, name, op)


def prefix(text: str) -> Json:
    address, _, length = text.partition("/")
    return {"prefix": {"addr": address, "len": int(length)}}


def address(field: str, right: Any, op: str = "==", protocol: str = "ip") -> Json:
    right = prefix(right) if isinstance(right, str) and "/" in right else right
    return match({"payload": {"protocol": protocol, "field": field}}, right, op)


def state(right: Any, op: str = "in") -> Json:
    return match({"ct": {"key": "state"}}, right, op)


def jump(name: str, word: str = "jump") -> Json:
    return {word: {"target": name}}


PORT = match({"payload": {"protocol": "tcp", "field": "dport"}}, 22)
NEW_DROPPED = {"vmap": {"key": {"ct": {"key": "state"}}, "data": {"set": [["established", ACCEPT], ["new", DROP]]}}}
METADATA = address("daddr", "169.254.169.254")
FWD, FWD_DROPS = chain("a", "fwd"), chain("a", "fwd", "drop")
ONE, TWO = chain("a", "one", hook=""), chain("a", "two", hook="")
OLD = state(["established", "related"])


def missing(rules: list[Json], spec: NodeSpec = SPEC, family: str = "ip") -> list[str]:
    """Return the missing accept rules: the kind, the chain, and the index of the rule that each belongs ahead of."""
    model = nft.ruleset(rules)

    def flows(base: Chain) -> places.Flows:
        return [traffic(spec, family, ["eth0"], base.name.startswith("bridge"))]

    needs = places.survey(model, [chain for chain in model.chains.values() if chain.hook == "forward"], flows, {}).needs
    return [f"{need.kind} {need.place.chain} {need.place.index}" for need in needs]


def both(place: str) -> list[str]:
    return [f"sent {place}", f"received {place}"]


@pytest.mark.parametrize(
    ("rules", "needs"),
    [
        pytest.param([FWD_DROPS], both("inet a fwd 0"), id="policy"),
        pytest.param([FWD], [], id="nothing drops"),
        pytest.param([chain("a", "in", "drop", "input")], [], id="another hook"),
        pytest.param([FWD, rule("fwd", DROP)], both("inet a fwd 0"), id="drop"),
        pytest.param([FWD, rule("fwd", REJECT)], both("inet a fwd 0"), id="reject"),
        pytest.param(
            [FWD_DROPS, rule("fwd", OLD, ACCEPT), rule("fwd", METADATA, DROP)],
            both("inet a fwd 2"), id="policy behind an operator's drop",
        ),
        pytest.param([FWD, rule("fwd", METADATA, DROP)], [], id="one address"),
        pytest.param([FWD, rule("fwd", incoming("cni0"), METADATA, DROP)], [], id="one address, from pods alone"),
        pytest.param(
            [FWD, rule("fwd", METADATA, DROP), rule("fwd", REJECT)], both("inet a fwd 1"), id="then everything"
        ),
        pytest.param([FWD, rule("fwd", PORT, DROP)], [], id="port"),
        pytest.param([FWD, rule("fwd", address("saddr", "@blocked"), DROP)], [], id="named set"),
        pytest.param(
            [FWD, rule("fwd", address("daddr", {"set": [prefix("10.0.0.0/8"), "169.254.169.254"]}), DROP)], [],
            id="set of addresses, one of which contains the pod network",
        ),
        pytest.param([FWD, rule("fwd", {"limit": {"rate": 5, "per": "second"}}, DROP)], [], id="rate"),
        pytest.param([FWD, rule("fwd", match({"meta": {"key": "mark"}}, 1), DROP)], [], id="mark"),
        pytest.param([FWD, rule("fwd", state("invalid"), DROP)], [], id="invalid"),
        pytest.param([FWD, rule("fwd", state("new"), DROP)],
                     ["sent inet a fwd 0", "received inet a fwd 0"], id="new"),
        pytest.param([FWD, rule("fwd", NEW_DROPPED)], both("inet a fwd 0"), id="new, by a map of states"),
        pytest.param([FWD, rule("fwd", incoming("eth0", "!="), DROP)], ["sent inet a fwd 0"], id="not from outside"),
        pytest.param([FWD, rule("fwd", incoming("cni0", "!="), DROP)], ["received inet a fwd 0"], id="not from pods"),
        pytest.param([FWD, rule("fwd", incoming("eth0"), DROP)], ["received inet a fwd 0"], id="from outside"),
        pytest.param([FWD, rule("fwd", incoming("eth*"), DROP)], ["received inet a fwd 0"], id="pattern"),
        pytest.param([FWD, rule("fwd", incoming({"set": ["eth0", "eth1"]}), DROP)],
                     ["received inet a fwd 0"], id="anonymous set of links"),
        pytest.param([FWD, rule("fwd", incoming("docker0"), DROP)], [], id="another's link"),
        pytest.param([FWD, rule("fwd", outgoing("wg0"), DROP)], [], id="to another's link"),
        pytest.param([FWD, rule("fwd", address("saddr", "10.0.0.0/8"), DROP)], both("inet a fwd 0"), id="containing"),
        pytest.param([FWD, rule("fwd", address("saddr", "10.244.0.7"), DROP)], [], id="one pod"),
        pytest.param([FWD, rule("fwd", address("daddr", "10.244.1.7"), DROP)], [], id="one pod of another node"),
        pytest.param(
            [FWD, rule("fwd", address("daddr", "10.244.1.0/24"), DROP)], ["among inet a fwd 0"], id="to a peer's pods"
        ),
        pytest.param([FWD, rule("fwd", address("saddr", "10.244.1.0/24"), DROP)],
                     ["received inet a fwd 0"], id="from a peer's pods"),
        pytest.param([FWD, rule("fwd", address("daddr", "10.244.9.0/24"), DROP)], [], id="to no peer's pods"),
        pytest.param([FWD, rule("fwd", address("saddr", "192.168.0.0/16", "!="), DROP)],
                     ["sent inet a fwd 0", "received inet a fwd 0"], id="negation"),
        pytest.param([FWD, rule("fwd", address("saddr", "10.0.0.0/8", "!="), DROP)], [], id="pods are in it"),
        pytest.param(
            [FWD, rule("fwd", incoming("cni0"), address("daddr", "10.0.0.0/8"), DROP)], ["among inet a fwd 0"],
            id="to a private network that the pods' is part of: from pods to pods alone",
        ),
        pytest.param([FWD, rule("fwd", address("daddr", "fd00::/8", protocol="ip6"), DROP)], [], id="IPv6"),
        pytest.param([FWD, rule("fwd", match({"meta": {"key": "nfproto"}}, "ipv6"), DROP)], [], id="all of IPv6"),
        pytest.param([FWD, rule("fwd", match({"meta": {"key": "nfproto"}}, "ipv4"), DROP)],
                     both("inet a fwd 0"), id="all of IPv4"),
        pytest.param([FWD, *(rule("fwd", link("cni0"), ACCEPT) for link in (incoming, outgoing)), rule("fwd", DROP)],
                     [], id="accepted by others"),
        pytest.param(
            [FWD, ONE, TWO, rule("fwd", jump("one")),
             rule("one", METADATA, DROP), rule("one", jump("two", "goto")), rule("two", DROP)],
            both("inet a two 0"), id="jump, goto",
        ),
        pytest.param(
            [FWD, ONE, rule("fwd", PORT, jump("one")), rule("one", DROP)], [], id="jump by port",
        ),
        pytest.param([FWD, ONE, rule("fwd", jump("one")), rule("one", jump("one"))], [], id="one"),
        pytest.param(
            [FWD, ONE, rule("fwd", jump("one")), rule("one", RETURN), rule("one", DROP)], [],
            id="returned before",
        ),
        pytest.param(
            [FWD_DROPS, ONE, rule("fwd", jump("one", "goto")), rule("fwd", ACCEPT)],
            both("inet a fwd 2"), id="goto ends at the policy",
        ),
        pytest.param(
            [FWD, {"map": {"family": "inet", "table": "a", "name": "m", "elem": [["new", jump("one")]]}},
             ONE, rule("fwd", {"vmap": {"key": {"ct": {"key": "state"}}, "data": "@m"}}),
             rule("one", DROP)],
            both("inet a one 0"), id="map of states",
        ),
        pytest.param(
            [FWD, {"map": {"family": "inet", "table": "a", "name": "m", "elem": [["10.244.0.0", DROP]]}},
             rule("fwd", {"vmap": {"key": {"payload": {"protocol": "ip", "field": "daddr"}}, "data": "@m"}})],
            [], id="map of addresses",
        ),
        pytest.param(
            [FWD, chain("a", "in", hook="input"), chain("a", "all", hook=""), rule("in", jump("all")),
             rule("fwd", jump("all")), rule("all", REJECT)],
            both("inet a fwd 0"), id="a chain that input leads to as well gets no accept rule",
        ),
        pytest.param([chain("a", "fwd", "drop", family="bridge")], both("bridge a fwd 0"), id="bridge"),
        pytest.param(
            [chain("a", "fwd", family="bridge"), rule("fwd", METADATA, DROP, family="bridge")], [],
            id="one address of a bridge",
        ),
    ],
)  # fmt: skip
def test_an_accept_belongs_directly_ahead_of_the_rule_that_drops_all_packets_of_pods(
    rules: list[Json], needs: list[str]
) -> None:
    assert missing(rules) == needs


def test_packets_dropped_only_in_ipv6_are_missing_only_for_ipv6() -> None:
    dual = NodeSpec(("10.244.0.0/24", "fd00:244::/64"), ("10.244.0.0/20", "fd00:244::/48"))
    rules = [FWD, rule("fwd", address("saddr", "fd00::/8", protocol="ip6"), REJECT)]
    assert missing(rules, dual) == []
    assert missing(rules, dual, "ip6") == ["sent inet a fwd 0"]


def test_without_peers_packets_from_pods_of_other_nodes_are_not_promised() -> None:
    alone = NodeSpec(("10.244.0.0/24",), ("10.244.0.0/20",))
    rules = [FWD, rule("fwd", incoming("eth0"), address("saddr", "10.244.0.0/16"), DROP)]
    assert missing(rules, alone) == []
    assert missing(rules) == ["received inet a fwd 0"]


@pytest.mark.parametrize(
    ("rules", "chains"),
    [
        ([chain("cnictl", "fwd", "drop")], []),
        ([chain("a", "fwd", "drop"), chain("a", "filter_FWD_policy_cnictl-pods", hook="")], []),
        # the owner flag as nft 1.0.6 and later versions print it; the kernel refuses other programs' rules there
        ([chain("a", "fwd", "drop"), {"table": {"family": "inet", "name": "a", "flags": "a"}}], []),
        ([chain("a", "fwd", "drop"), {"table": {"family": "inet", "name": "a", "flags": ["owner", "persist"]}}], []),
        ([chain("a", "fwd", "drop"), {"table": {"family": "inet", "name": "a", "flags": "dormant"}}], []),
        ([chain("a", "fwd", "drop"), {"table": {"family": "inet", "name": "a"}}], ["inet a fwd"]),
    ],
)
def test_only_chains_without_an_owner_are_examined(
    rules: list[Json], chains: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(firewall, "iptables_works", lambda _: False)
    assert list(base_chains(rules)) == chains


OURS = {"sent": ("sent",), "received": ("received",)}


def judged(*rules: Json, policy: str = "accept") -> tuple[dict[int, str], int]:
    """Return our rules that are out of place, by index, and the number of accept rules that are missing then."""
    model = nft.ruleset([chain("a", "fwd", policy), *rules], lambda listed: str(listed.get("comment", "")))
    survey = places.survey(
        model,
        [chain for chain in model.chains.values() if chain.hook == "forward"],
        lambda _: [traffic(SPEC, "ip", ["eth0"])],
        OURS,
    )
    return {place.index: str(why) for place, why in survey.misplaced.items()}, len(survey.needs)


SENT, RECEIVED = rule("fwd", ACCEPT, comment="sent"), rule("fwd", ACCEPT, comment="received")


def test_accepts_at_the_end_are_in_place() -> None:
    assert judged(rule("fwd", METADATA, DROP), SENT, RECEIVED, policy="drop") == ({}, 0)


def test_accepts_at_the_head_are_in_place_if_no_particular_drop_follows() -> None:
    assert judged(SENT, RECEIVED, rule("fwd", state("invalid"), DROP), policy="drop") == ({}, 0)


def test_an_accept_ahead_of_a_particular_drop_is_out_of_place() -> None:
    reason = "ahead of ip daddr 169.254.169.254 drop in inet a fwd"
    assert judged(SENT, RECEIVED, rule("fwd", METADATA, DROP), policy="drop") == ({0: reason}, 1)
    assert judged(SENT, RECEIVED, rule("fwd", METADATA, DROP)) == ({0: reason}, 0)


def test_an_accept_behind_the_drop_is_out_of_place() -> None:
    behind = "behind drop in inet a fwd"
    assert judged(rule("fwd", DROP), SENT, RECEIVED) == ({1: behind, 2: behind}, 2)
    assert judged(rule("fwd", incoming("eth0"), DROP), SENT, RECEIVED) == (
        {2: 'behind iifname "eth0" drop in inet a fwd'},
        1,
    )


def fib(*flags: str) -> Json:
    return {"fib": {"result": "type", "flags": list(flags)}}


@pytest.mark.parametrize(
    ("what", "certain"),
    [
        (match(fib("daddr"), "local"), True),
        (match(fib("daddr"), {"set": ["local", "broadcast"]}), True),
        (match(fib("daddr"), "local", "!="), False),
        (match(fib("saddr"), "local"), False),
        (match(fib("daddr", "iif"), "local"), False),
    ],
)
def test_packets_from_pods_to_this_node_have_one_of_its_addresses(what: Json, certain: bool) -> None:
    packets = Packets("ip", "cni0", source="10.244.0.0/24", source_type="unicast", target_type="local")
    model = nft.ruleset([chain("a", "in", hook="input"), rule("in", what, DROP)])
    dropped = list(drops(walk(model, "inet a in", packets)))
    assert [drop.certain for drop in dropped] == ([True] if certain else [False] * len(dropped))
