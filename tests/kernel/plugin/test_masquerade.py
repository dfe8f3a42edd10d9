"""`ipMasq`, tested by the source that the receiver sees, also beside other tools' rules and after a flush."""

import pytest

from tests.kernel.plugin.client import Host
from tests.kernel.underlay import (
    DUAL,
    NODE,
    NODE6,
    OTHER_NODES_POD,
    OTHER_NODES_POD6,
    OUTSIDE,
    OUTSIDE6,
    backends,
    foreign_masquerade,
    masquerading,
    seen,
    sources,
)
from tests.kernel.underlay import underlay as underlay

pytestmark = pytest.mark.usefixtures("underlay")


@pytest.mark.parametrize(
    ("backend", "families"),
    [("nftables", "46"), ("iptables", "46"), ("nftables", "6"), ("iptables", "6"), ("nftables", "4")],
)
def test_outside_sees_the_node_and_other_nodes_pods_see_the_pod(host: Host, backend: str, families: str) -> None:
    masquerading(host, backend)
    chosen = [place for place, family in enumerate("46") if family in families]

    def of(four: str, six: str) -> list[str]:
        return [(four, six)[place] for place in chosen]

    host.conf |= {key: of(*values) for key, values in DUAL.items()}
    pod, other = host.pods(2)
    own, node = of("10.244.0.2", "fd00:244::2"), of(NODE, NODE6)
    host.add(pod)
    for address in of(OUTSIDE, OUTSIDE6) + of(OTHER_NODES_POD, OTHER_NODES_POD6):
        assert host.pings(pod, address), address
    assert [*sources(host, pod, *of(OUTSIDE, OUTSIDE6), *of(OTHER_NODES_POD, OTHER_NODES_POD6))] == [*node, *own]
    host.add(other)
    assert [*sources(host, pod, *of("10.244.0.3", "fd00:244::3"), receiver=other)] == own
    assert [*sources(host, pod, *of("10.244.0.1", "fd00:244::1"), *node, receiver=None)] == [*own, *own]


@backends
@pytest.mark.parametrize("order", ["before", "after"])
def test_foreign_masquerade_does_not_rewrite_pod_to_pod(host: Host, backend: str, order: str) -> None:
    masquerading(host, backend)
    pod = host.pod()
    if order == "before":
        foreign_masquerade(host)
    host.add(pod)
    if order == "after":
        foreign_masquerade(host)
    received_from = sources(host, pod, OTHER_NODES_POD, OTHER_NODES_POD6, OUTSIDE, OUTSIDE6)
    assert received_from == ("10.244.0.2", "fd00:244::2", NODE, NODE6)
    assert host.pings(pod, OTHER_NODES_POD) and host.pings(pod, OTHER_NODES_POD6)


@backends
def test_foreign_masquerade_put_first_is_moved_back_by_the_next_add(host: Host, backend: str) -> None:
    masquerading(host, backend)
    pod, other = host.pods(2)
    host.add(pod)
    foreign_masquerade(host, "-I POSTROUTING 1")
    host.add(other)
    assert sources(host, pod, OTHER_NODES_POD, OTHER_NODES_POD6) == ("10.244.0.2", "fd00:244::2")
    rules = host.traces()["rules"]
    host.add(host.pod("third"))
    assert host.traces()["rules"] == rules


def test_foreign_masquerade_rewrites_pod_to_pod_without_our_rules(host: Host) -> None:
    """The foreign rule of the test above does masquerade pod-to-pod traffic if our rules are absent."""
    foreign_masquerade(host)
    host.conf |= DUAL
    pod = host.pod()
    host.add(pod)
    assert sources(host, pod, OTHER_NODES_POD, OTHER_NODES_POD6) == (NODE, NODE6)


@backends
@pytest.mark.parametrize("mark", ["0x4000", "0x2000"])
def test_packets_marked_for_masquerade_are_left_to_kube_proxy_and_portmap(host: Host, backend: str, mark: str) -> None:
    masquerading(host, backend)
    for program in ("iptables", "ip6tables"):
        host.run(*f"{program} -t mangle -A PREROUTING -p udp --dport 77 -j MARK --set-mark {mark}".split())
        host.run(*f"{program} -t nat -A POSTROUTING -m mark --mark {mark}/{mark} -j MASQUERADE".split())
    pod = host.pod()
    host.add(pod)
    assert sources(host, pod, OTHER_NODES_POD, OTHER_NODES_POD6, port=77) == (NODE, NODE6)
    assert sources(host, pod, OTHER_NODES_POD, OTHER_NODES_POD6, port=99) == ("10.244.0.2", "fd00:244::2")


def test_without_ip_masq_no_rule_is_loaded(host: Host) -> None:
    pod = host.pod()
    host.add(pod)
    assert host.traces()["rules"] == ""
    assert seen(host, pod, OUTSIDE) == "10.244.0.2"


@pytest.mark.parametrize(
    ("backend", "flush"),
    [
        ("nftables", "nft flush ruleset"),
        ("nftables", "nft delete table inet cnictl"),
        ("nftables", "nft flush chain inet cnictl masquerade-mynet"),
        ("nftables", "nft delete chain inet cnictl identity-mynet"),
        ("iptables", "nft flush ruleset"),
        ("iptables", "iptables -t nat -F"),
        ("iptables", "iptables -t nat -F POSTROUTING"),
        ("iptables", "ip6tables -t nat -F"),
    ],
)
def test_flushed_rules_are_back_with_the_next_pod(host: Host, backend: str, flush: str) -> None:
    masquerading(host, backend)
    pod, other = host.pods(2)
    host.add(pod)
    rules = sorted(host.traces()["rules"].splitlines())
    host.run(*flush.split())
    assert sorted(host.traces()["rules"].splitlines()) != rules
    host.add(other)
    assert sorted(host.traces()["rules"].splitlines()) == rules
    assert sources(host, pod, OUTSIDE, OUTSIDE6) == (NODE, NODE6)
    assert sources(host, other, OTHER_NODES_POD, OTHER_NODES_POD6) == ("10.244.0.3", "fd00:244::3")


@backends
def test_rules_are_the_same_after_one_pod_and_after_many(host: Host, backend: str) -> None:
    masquerading(host, backend)
    pods = host.pods(4)
    host.add(pods[0])
    rules = host.traces()["rules"]
    for pod in pods[1:]:
        host.add(pod)
    for pod in pods[1:]:
        host.delete(pod)
    host.add(pods[1])
    assert host.traces()["rules"] == rules


@backends
def test_changed_network_replaces_the_rules(host: Host, backend: str) -> None:
    masquerading(host, backend)
    pod, other = host.pods(2)
    host.add(pod)
    host.conf["network"] = ["10.244.0.0/24", "fd00:244::/48"]  # traffic that was pod-to-pod now leaves the network
    host.add(other)
    assert sources(host, pod, OTHER_NODES_POD, OTHER_NODES_POD6) == (NODE, "fd00:244::2")
    host.conf["network"] = DUAL["network"]
    third = host.pod("third")
    host.add(third)
    assert seen(host, third, OTHER_NODES_POD) == "10.244.0.4"


@backends
def test_two_networks_each_masquerade_their_own_pods(host: Host, backend: str) -> None:
    masquerading(host, backend)
    pod, other = host.pods(2)
    second = {**host.conf, "name": "second", "bridge": "cni1", "network": "10.99.0.0/16", "subnet": "10.99.0.0/24"}
    host.add(pod)
    host.add(other, second)
    assert seen(host, pod, OUTSIDE) == NODE
    assert seen(host, other, OUTSIDE) == NODE
    host.delete(other, second)
    assert seen(host, pod, OUTSIDE) == NODE


@backends
def test_foreign_rules_stay_as_they_are(host: Host, backend: str) -> None:
    masquerading(host, backend)
    foreign_masquerade(host)
    host.run("iptables", "-A", "FORWARD", "-s", "198.51.100.0/24", "-j", "DROP")
    host.run("nft", "add table inet theirs; add chain inet theirs c; add rule inet theirs c counter drop")
    before = host.traces()["rules"].splitlines()
    pod = host.pod()
    host.add(pod)
    host.delete(pod)
    after = host.traces()["rules"].splitlines()
    assert set(before) <= set(after)


FORMER = {
    "nftables": """\
add table inet cnictl
add chain inet cnictl identity-mynet { type nat hook postrouting priority 90; policy accept; }
add chain inet cnictl masquerade-mynet { type nat hook postrouting priority 95; policy accept; }
add rule inet cnictl masquerade-mynet ip saddr 10.244.0.0/24 counter masquerade comment "cnictl:mynet 6b7c1ce3"
""",
    "iptables": """\
*nat
:CNICTL-b734f0fd - [0:0]
-A CNICTL-b734f0fd -m comment --comment "cnictl:mynet 6b7c1ce3" -j MASQUERADE
-A POSTROUTING -s 10.244.0.0/24 -m comment --comment "cnictl:mynet" -j CNICTL-b734f0fd
COMMIT
""",
}


@backends
def test_former_releases_rules_are_replaced_in_place(host: Host, backend: str) -> None:
    masquerading(host, backend)
    pod, other = host.pods(2)
    host.add(pod)
    rules = sorted(host.traces()["rules"].splitlines())
    host.run("nft", "flush", "ruleset")
    host.run(*(["nft", "-f", "-"] if backend == "nftables" else ["iptables-restore"]), stdin=FORMER[backend])
    host.add(other)
    assert sorted(host.traces()["rules"].splitlines()) == rules
