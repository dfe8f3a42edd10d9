"""A failed check names the one fault that the test makes on either node, and its hint fixes the fault."""

import json
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from cnictl.lab.lab import Lab
from tests.kernel.cluster import GUARD, Cluster, Outcome, served, shell
from tests.kernel.hints import applies, matches
from tests.waiting import wait_for

pytestmark = pytest.mark.once


@dataclass
class Pods:
    """Pods that stay up during the faults: two here, one there."""

    cluster: Cluster
    here: str
    there: str

    def test(self, *more: str) -> Outcome:
        """Run the checks from the existing pod, so that no ADD repairs the fault."""
        return self.cluster.test("--from", self.here, *(more or ("--pod", self.there)))


@pytest.fixture(scope="module")
def pods() -> Iterator[Pods]:
    with Lab(nodes=2) as lab:
        cluster = Cluster(lab)
        cluster.init()
        with served(cluster.here) as here, served(cluster.here), served(cluster.there) as there:
            yield Pods(cluster, here, there)


@dataclass(frozen=True)
class Fault:
    """A fault, the node that has it, and what the check must report."""

    there: bool
    inject: str
    check: str
    cause: str
    says: str
    printed: str
    """The text of the hint."""
    hint: str
    """The hint's name in tests/kernel/hints.py."""
    undo: str = ""
    """The command that removes the injected thing if the hint leaves it in place."""


APPLY_THERE = "on 10.0.10.51: cnictl apply"
BRIDGE_UP_THERE = (
    "on 10.0.10.51: cnictl bridge up  # if its pod CIDR is no longer 10.244.1.0/24 (cnictl status there), run here: "
    "cnictl route del-peer 10.244.1.0/24, and add-peer with the new one"
)
FAULTS = {
    "bridge down": Fault(
        False, "ip link set cni0 down", "own-host", "bridge-unfit", "bridge cni0 is down", "cnictl bridge up",
        "probe.causes_local.bridge_unfit: cnictl bridge up",
    ),
    "bridge without its address": Fault(
        False,
        "ip address delete 10.244.0.1/24 dev cni0",
        "external",
        "bridge-unfit",
        "bridge cni0 has no IPv4 address instead of the gateway address 10.244.0.1/24",
        "cnictl bridge up",
        "probe.causes_local.bridge_unfit: cnictl bridge up",
    ),
    "forwarding off": Fault(
        False,
        "sysctl -qw net.ipv4.ip_forward=0",
        "other-host",
        "forwarding-off",
        "net.ipv4.ip_forward is 0 on this node",
        "cnictl apply",
        "probe.causes_local.forwarding_off: cnictl apply",
    ),
    "forwarding off on the uplink alone": Fault(
        False,
        "sysctl -qw net.ipv4.conf.eth0.forwarding=0",
        "external",
        "forwarding-off",
        "net.ipv4.conf.eth0.forwarding is 0",
        "sysctl -w net.ipv4.conf.eth0.forwarding=1",
        "probe.causes_local.forwarding_off: sysctl -w {}=1",
    ),
    "peer route lost": Fault(
        False,
        "ip route delete 10.244.1.0/24",
        "pod-other-host",
        "no-route",
        "no route to the peer's pod CIDR 10.244.1.0/24 through 10.0.10.51",
        "cnictl apply",
        "probe.causes_local._route_to: cnictl apply",
    ),
    "masquerade flushed": Fault(
        False,
        "nft delete table inet cnictl",
        "external",
        "no-masquerade",
        "no masquerade rule: the request left with the pod's own address",
        "cnictl nat enable",
        "probe.causes_local.not_masqueraded: cnictl nat enable",
    ),
    "another table drops what is forwarded": Fault(
        False,
        GUARD,
        "pod-same-host",
        "dropped-here",
        "dropped on this node by the policy drop of chain ip guard forward",
        "cnictl apply",
        "probe.causes_local._let_through: cnictl apply",
        "nft delete table ip guard",
    ),
    "a rule drops the requests": Fault(
        False,
        "iptables -I FORWARD -d 10.244.1.0/24 -j DROP",
        "pod-other-host",
        "dropped-here",
        'it is dropped on this node by rule "ip daddr 10.244.1.0/24 counter drop" of chain ip filter FORWARD',
        "cnictl apply",
        "probe.causes_local._let_through: cnictl apply",
        "iptables -D FORWARD -d 10.244.1.0/24 -j DROP",
    ),
    "a rule drops the replies": Fault(
        False,
        "iptables -I FORWARD -s 10.244.1.0/24 -j DROP",
        "pod-other-host",
        "dropped-here",
        'the reply is dropped on this node by rule "ip saddr 10.244.1.0/24 counter drop" of chain ip filter FORWARD',
        "cnictl apply",
        "probe.causes_local._let_through: cnictl apply",
        "iptables -D FORWARD -s 10.244.1.0/24 -j DROP",
    ),
    "peer's forward drops by policy": Fault(
        True, GUARD, "pod-other-host", "peer-drops", "FORWARD drop on peer 10.0.10.51", APPLY_THERE,
        "probe.causes_remote._accept_there: cnictl apply",
        "nft delete table ip guard",
    ),
    "peer's forward drops by a rule": Fault(
        True,
        "iptables -I FORWARD -s 10.244.0.0/24 -j DROP",
        "pod-other-host",
        "peer-drops",
        "FORWARD drop on peer 10.0.10.51",
        APPLY_THERE,
        "probe.causes_remote._accept_there: cnictl apply",
        "iptables -D FORWARD -s 10.244.0.0/24 -j DROP",
    ),
    "peer's forward rejects": Fault(
        True,
        "iptables -I FORWARD -s 10.244.0.0/24 -j REJECT",
        "pod-other-host",
        "peer-rejects",
        "10.0.10.51 answers: port unreachable",
        APPLY_THERE,
        "probe.causes_remote._accept_there: cnictl apply",
        "iptables -D FORWARD -s 10.244.0.0/24 -j REJECT",
    ),
    "peer's forwarding off": Fault(
        True,
        "sysctl -qw net.ipv4.ip_forward=0",
        "pod-other-host",
        "peer-forwarding-off",
        "peer 10.0.10.51 does not forward (net.ipv4.ip_forward is 0)",
        APPLY_THERE,
        "probe.causes_remote.peer_forwarding_off: cnictl apply",
    ),
    "peer without the return route": Fault(
        True,
        "ip route delete 10.244.0.0/24",
        "pod-other-host",
        "no-return-route",
        "peer 10.0.10.51 lacks the return route to 10.244.0.0/24",
        "on 10.0.10.51: cnictl route add-peer 10.244.0.0/24 10.0.0.210",
        "node.reach.peer_hints.there: cnictl route add-peer {} {}",
    ),
    "peer's bridge down": Fault(
        True,
        "ip link set cni0 down",
        "pod-other-host",
        "peer-without-bridge",
        "to 10.0.0.1: its bridge is down or has no address in 10.244.1.0/24",
        BRIDGE_UP_THERE,
        "probe.causes_remote._bridge_up: cnictl bridge up",
    ),
}  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS.keys())
def test_fault_is_named_and_its_hint_fixes_it(pods: Pods, fault: Fault) -> None:
    broken = pods.cluster.there if fault.there else pods.cluster.here
    shell(broken, fault.inject)
    outcome = pods.test()
    check = outcome.of(fault.check)
    assert (outcome.status, outcome.overall, check["state"]) == (1, "failed", "failed")
    assert (check["cause_name"], check["hint"]["text"]) == (fault.cause, fault.printed)
    assert " ".join(fault.says.split()) in " ".join(check["cause"].split())
    address, command = check["hint"]["on"], check["hint"]["command"]
    assert matches(fault.hint, command)
    assert bool(address) == fault.there
    shell(pods.cluster.node_at(address) if address else broken, command)
    # a bridge that comes up gets its carrier later, by deferred work, and loses packets until then
    wait_for(lambda: pods.test().overall == "ok", f"{command} fixes it")
    if fault.undo:
        shell(broken, f"{fault.undo}; cnictl apply")


@pytest.mark.parametrize("name", [name for name, fault in FAULTS.items() if fault.there])
def test_peer_with_rate_limited_icmp_errors_still_counts_as_forwarding(pods: Pods, name: str) -> None:
    fault = FAULTS[name]
    shell(pods.cluster.there, fault.inject)
    # more than six requests at once, which all expire on the peer
    ping = f"ping -q -c 10 -i 0.01 -W 0.1 -t 2 {pods.there}"
    shell(
        pods.cluster.here,
        f"{ping}; for pod in $(ip netns list | cut -d' ' -f1); do ip netns exec $pod {ping}; done; true",
    )
    check = pods.test().of(fault.check)
    address, command = check["hint"]["on"], check["hint"]["command"]
    shell(pods.cluster.node_at(address), f"{command}; {fault.undo or 'true'}; cnictl apply")
    wait_for(lambda: pods.test().overall == "ok", f"{command} fixes it")
    assert (check["cause_name"], check["hint"]["text"]) == (fault.cause, fault.printed)


def test_checks_that_pass_are_not_blamed_for_another_checks_cause(pods: Pods) -> None:
    shell(pods.cluster.there, GUARD)
    states = pods.test().states
    shell(pods.cluster.there, "nft delete table ip guard; cnictl apply")
    assert states == {
        "own-host": "ok",
        "pod-same-host": "ok",
        "other-host": "ok",
        "pod-other-host": "failed",
        "external": "ok",
    }


def test_a_peer_that_is_gone_is_silent_even_with_a_neighbour_entry(pods: Pods) -> None:
    assert pods.test().overall == "ok"
    shell(pods.cluster.there, "ip link set eth0 down")
    outcome = pods.test()
    shell(pods.cluster.there, "ip link set eth0 up && ip route add default via 10.0.0.1 && cnictl apply")
    for check in ("other-host", "pod-other-host"):
        assert outcome.of(check)["cause_name"] == "neighbour-unresolved"
        assert "next hop 10.0.10.51 does not answer ARP on eth0" in outcome.of(check)["cause"]
    assert pods.test().overall == "ok"


def test_a_peer_whose_input_drops_is_silent_though_it_answers_arp(pods: Pods) -> None:
    shell(pods.cluster.there, "iptables -I INPUT -p icmp -j DROP")
    check = pods.test().of("other-host")
    shell(pods.cluster.there, "iptables -D INPUT -p icmp -j DROP")
    assert check["cause_name"] == "peer-silent"


def test_own_input_rule_is_named(pods: Pods) -> None:
    shell(pods.cluster.here, "iptables -I INPUT -i cni0 -p icmp -j DROP")
    check = pods.test().of("own-host")
    shell(pods.cluster.here, "iptables -D INPUT -i cni0 -p icmp -j DROP")
    assert check["cause_name"] == "dropped-here"
    assert "of chain ip filter INPUT" in check["cause"]


def test_an_address_that_no_pod_has_is_distinguished_from_a_drop(pods: Pods) -> None:
    check = pods.test("--pod", "10.244.1.200").of("pod-other-host")
    assert check["cause_name"] == "no-such-pod"
    assert check["hint"]["text"] == "on 10.0.10.51: cnictl ipam list"


def test_an_address_that_no_pod_of_this_node_has_is_named(pods: Pods) -> None:
    check = pods.test("--pod", "10.244.0.200").of("pod-same-host")
    assert check["cause_name"] == "no-such-pod"
    assert check["hint"]["text"] == "cnictl ipam list"


@applies("probe.causes_local.reverse_path: sysctl -w {}=2")
def test_strict_reverse_path_filter_is_named_with_its_sysctl(pods: Pods) -> None:
    """The peer's replies arrive on another link than the one that leads to the peer."""
    here, there = pods.cluster.here, pods.cluster.there
    for node, number, other in ((here, 1, there), (there, 2, here)):
        shell(
            node,
            f"ip link add second type vxlan id 9 dstport 4789 local {node.address} remote {other.address} dev eth0"
            f" && ip address add 10.9.0.{number}/24 dev second && ip link set second up",
        )
    shell(there, "ip route replace 10.244.0.0/24 via 10.9.0.1 dev second")
    shell(here, "sysctl -qw net.ipv4.conf.second.rp_filter=1")
    check = pods.test().of("pod-other-host")
    shell(here, check["hint"]["command"])
    fixed = pods.test().of("pod-other-host")
    for node in (here, there):
        shell(node, "ip link delete second; cnictl apply")
    assert check["cause_name"] == "reverse-path"
    assert check["hint"]["text"] == "sysctl -w net.ipv4.conf.second.rp_filter=2"
    assert fixed["state"] == "ok"


@applies("probe.causes_local.port_unfit: cnictl apply")
def test_hint_returns_a_host_veth_to_the_bridge(pods: Pods) -> None:
    index = shell(pods.cluster.here, f"cat /var/lib/cni/networks/mynet/{pods.here}").split()[0]
    record = json.loads(shell(pods.cluster.here, f"cat /var/lib/cnictl/attachments/mynet/{index}@eth0"))
    shell(pods.cluster.here, f"ip link set {record['host_veth']} nomaster")
    check = pods.test().of("own-host")
    assert check["cause_name"] == "port-unfit"
    assert matches("probe.causes_local.port_unfit: cnictl apply", check["hint"]["command"])
    shell(pods.cluster.here, check["hint"]["command"])
    wait_for(lambda: pods.test().overall == "ok", "apply brings the port back")


@applies("node.reach.peer_hints.here: cnictl route add-peer {} {}{}")
def test_hint_adds_a_peer_that_was_only_named_on_the_command_line(pods: Pods) -> None:
    here = pods.cluster.here
    shell(here, "cnictl route del-peer 10.244.1.0/24 --yes")
    check = pods.test("--pod", pods.there, "--peer", "10.244.1.0/24=10.0.10.51").of("pod-other-host")
    assert check["cause_name"] == "no-route"
    assert matches("node.reach.peer_hints.here: cnictl route add-peer {} {}{}", check["hint"]["command"])
    shell(here, check["hint"]["command"])
    wait_for(lambda: pods.test().overall == "ok", "the peer is added")


def test_hint_is_not_apply_if_apply_would_not_fix_the_fault(pods: Pods) -> None:
    """A policy rule precedes the peer's route, and a rule drops only one pod's echo requests."""
    here = pods.cluster.here
    faults = (
        ("ip rule {} to 10.244.1.0/24 table 77; ip route {} default via 10.0.0.1 table 77", "diverted"),
        (f"iptables -{{}} FORWARD -s {pods.here} -d {pods.there} -p icmp -j DROP", "dropped-here"),
    )
    for fault, cause in faults:
        shell(here, fault.format(*(("I",) if "iptables" in fault else ("add", "add"))))
        check = pods.test().of("pod-other-host")
        before = shell(here, "cnictl apply")
        again = pods.test().of("pod-other-host")
        shell(here, fault.format(*(("D",) if "iptables" in fault else ("del", "del"))))
        assert "changed" not in before.replace("unchanged", "").replace("0 changed", "")
        assert (check["cause_name"], again["cause_name"]) == (cause, cause)
        assert bool(check["hint"]["command"]) == (cause == "diverted"), check
        assert "cnictl apply" not in check["hint"]["text"]
    assert pods.test().overall == "ok"


def test_hint_is_right_if_the_peers_pod_cidr_has_changed(pods: Pods) -> None:
    """The peer's bridge is up and has other pods. The fix is in the part of the hint that follows its command."""
    here, there = pods.cluster.here, pods.cluster.there
    shell(there, "cnictl init-node --subnet 10.244.5.0/24 --force")
    check = pods.test().of("pod-other-host")
    words = check["hint"]["text"]
    assert check["cause_name"] == "peer-without-bridge"
    assert "if its pod CIDR is no longer 10.244.1.0/24 (cnictl status there), run here: " in words
    shell(here, "cnictl route del-peer 10.244.1.0/24 --yes; cnictl route add-peer 10.244.5.0/24 10.0.10.51")
    states = pods.test("--pod", "10.244.5.200").of("pod-other-host")["cause_name"]
    shell(there, "cnictl init-node --subnet 10.244.1.0/24 --force")
    shell(here, "cnictl route del-peer 10.244.5.0/24 --yes; cnictl route add-peer 10.244.1.0/24 10.0.10.51")
    assert states == "no-such-pod"


def test_unreachable_outside_is_not_blamed_on_the_node(pods: Pods) -> None:
    check = pods.test("--pod", pods.there, "--external", "203.0.113.9").of("external")
    assert check["cause_name"] in ("outside-silent", "refused")


def test_diagnosis_leaves_nothing_behind(pods: Pods) -> None:
    shell(pods.cluster.here, GUARD)
    pods.test()
    shell(pods.cluster.here, "nft delete table ip guard; cnictl apply")
    assert "cnictl-probe" not in shell(pods.cluster.here, "nft list tables")
