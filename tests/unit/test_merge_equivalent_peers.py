"""Peers that no rule distinguishes share one walk through the rule set, even if there are thousands."""

import shlex
from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from cnictl.node.host.verdicts import iptables, places
from cnictl.node.host.verdicts.model import Ruleset
from cnictl.node.host.verdicts.pods import merge_equivalent_peers, traffic
from cnictl.node.spec.node_spec import NodeSpec, Peer

SPEC = NodeSpec(("10.244.0.0/24",), ("10.244.0.0/16",))
CHAIN = "CNICTL-FORWARD"

_ADDRESSES = ("10.244.2.0/23", "10.244.2.0/24", "10.244.3.0/24", "10.244.4.0/24", "10.244.3.128/25")
_MATCHES = st.builds(
    "{}{} {}".format,
    st.sampled_from(("", "! ")),
    st.sampled_from(("-s", "-d")),
    st.sampled_from(_ADDRESSES),
) | st.sampled_from(("-i cni0", "-o cni0", "-i eth0", "! -o eth1", "-m conntrack --ctstate NEW", "-p tcp"))
_RULES = st.builds(
    "-A {} {} -j {}".format,
    st.sampled_from(("FORWARD", "FORWARD", "OTHER")),
    _MATCHES | st.lists(_MATCHES, max_size=2).map(" ".join),
    st.sampled_from(("DROP", "DROP", "ACCEPT", "RETURN", "OTHER", CHAIN)),
)
_PEERS = st.lists(
    st.builds(
        lambda at, dev: Peer(f"10.244.{at}.0/24", f"10.0.10.{at}", dev),
        st.integers(2, 4),
        st.sampled_from(("", "eth1")),
    ),
    min_size=2,
    max_size=3,
    unique_by=lambda peer: peer.pod_cidr,
)


def ruleset(lines: list[str]) -> Ruleset:
    """Return the model of an iptables table."""
    return iptables.ruleset([shlex.split(line) for line in ("-P FORWARD ACCEPT", "-N OTHER", *lines)], "", CHAIN)


@given(st.lists(_RULES, max_size=4), _PEERS)
def test_omitted_peers_do_not_change_the_verdict(lines: list[str], peers: list[Peer]) -> None:
    model, spec = ruleset(lines), replace(SPEC, peers=tuple(peers))
    kinds = {rule.ours: ("sent", "received") for chain in model.chains.values() for rule in chain.rules if rule.ours}

    def judged(known: NodeSpec) -> places.Survey:
        flows = [traffic(known, "ip", ["eth0", "eth1"])]
        return places.survey(model, [model.chains["FORWARD"]], lambda _: flows, kinds)

    assert judged(merge_equivalent_peers(spec, model)) == judged(spec)


def test_one_peer_represents_all_that_no_rule_distinguishes() -> None:
    peers = tuple(Peer(f"10.244.{at}.0/24", f"10.0.10.{at}") for at in range(1, 255))
    spec = replace(SPEC, peers=peers[:200], learned=peers[200:])
    plain = ruleset(["-A FORWARD -i docker0 -j ACCEPT"])
    assert merge_equivalent_peers(spec, plain).known_peers == peers[:1]
    named = ruleset(["-A FORWARD -d 10.244.7.0/24 -j DROP", "-A FORWARD -s 10.244.9.8/32 -j DROP"])
    left = [peer.pod_cidr for peer in merge_equivalent_peers(spec, named).known_peers]
    assert left == ["10.244.1.0/24", "10.244.7.0/24", "10.244.8.0/24", "10.244.9.0/24", "10.244.10.0/24"]
