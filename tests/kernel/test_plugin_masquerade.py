"""`ipMasq`, judged by what the receiver sees: who a packet comes from, beside other tools' rules and after a flush."""

import hashlib
import subprocess

import pytest

from .plugin_client import Host, Pod

NODE, NODE6 = "10.0.0.210", "fd00:10::210"
OUTSIDE, OUTSIDE6 = "192.0.2.10", "2001:db8::10"
OTHER_NODES_POD, OTHER_NODES_POD6 = "10.244.1.2", "fd00:244:0:1::2"
DUAL = {"subnet": ["10.244.0.0/24", "fd00:244::/64"], "network": ["10.244.0.0/20", "fd00:244::/48"]}
BEYOND = Pod("beyond", "/run/netns/beyond", "eth0")

_LISTENER = """
import socket, sys
port, *addresses = sys.argv[1:]
listeners = [socket.socket(socket.AF_INET6 if ":" in one else socket.AF_INET, socket.SOCK_DGRAM) for one in addresses]
for listener, address in zip(listeners, addresses):
    listener.bind((address, int(port)))
    listener.settimeout(5)
print("ready", flush=True)
print(*(listener.recvfrom(64)[1][0] for listener in listeners), flush=True)
"""
_SENDER = """
import socket, sys
port, *addresses = sys.argv[1:]
for address in addresses:
    sender = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_DGRAM)
    sender.sendto(b"?", (address, int(port)))
"""

pytestmark = pytest.mark.usefixtures("underlay")
backends = pytest.mark.parametrize("backend", ["nftables", "iptables"])


@pytest.fixture
def underlay(host: Host) -> None:
    """One link to another node, that has a pod, and to a host outside, that knows the way to the nodes alone."""
    host.run("sysctl", "-qw", "net.ipv4.ip_forward=1", "net.ipv6.conf.all.forwarding=1")
    host.run("ip", "netns", "add", "beyond")
    host.run("ip", "link", "add", "uplink", "type", "veth", "peer", "name", "eth0", "netns", "beyond")
    host.run("ip", "link", "set", "uplink", "up")
    host.run("ip", "address", "add", f"{NODE}/20", "dev", "uplink")
    host.run("ip", "address", "add", f"{NODE6}/64", "dev", "uplink", "nodad")
    for line in (
        "link set lo up",
        "link set eth0 up",
        "address add 10.0.10.51/20 dev eth0",
        f"address add {OTHER_NODES_POD}/32 dev lo",
        f"address add {OUTSIDE}/32 dev lo",
        f"rule add from {OTHER_NODES_POD} lookup 100",
        f"route add 10.244.0.0/24 via {NODE} table 100",
        "address add fd00:10::51/64 dev eth0 nodad",
        f"address add {OTHER_NODES_POD6}/128 dev lo nodad",
        f"address add {OUTSIDE6}/128 dev lo nodad",
        f"-6 rule add from {OTHER_NODES_POD6} lookup 100",
        f"-6 route add fd00:244::/64 via {NODE6} table 100",
    ):
        host.inside(BEYOND, "ip", *line.split())
    for destination in ("10.244.1.0/24", "192.0.2.0/24"):
        host.run("ip", "route", "add", destination, "via", "10.0.10.51")
    for destination in ("fd00:244:0:1::/64", "2001:db8::/64"):
        host.run("ip", "-6", "route", "add", destination, "via", "fd00:10::51")


def seen(host: Host, pod: Pod, address: str, port: int = 99, receiver: Pod | None = BEYOND) -> str:
    """The source that a datagram of the pod has where it arrives (on the host itself where no receiver is named)."""
    (one,) = sources(host, pod, address, port=port, receiver=receiver)
    return one


def sources(host: Host, pod: Pod, *addresses: str, port: int = 99, receiver: Pod | None = BEYOND) -> tuple[str, ...]:
    """The same for several addresses at once."""
    place = ["nsenter", f"--net={receiver.netns}"] if receiver else []
    listener = subprocess.Popen(
        [*host.enter, *place, "python3", "-IS", "-c", _LISTENER, str(port), *addresses],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert listener.stdout is not None
    assert listener.stdout.readline() == "ready\n"
    host.inside(pod, "python3", "-IS", "-c", _SENDER, str(port), *addresses)
    return tuple(listener.communicate(timeout=20)[0].split())


def foreign_masquerade(host: Host, place: str = "-A POSTROUTING") -> None:
    """What Docker, among others, adds for its networks: from the subnet, out of any link but the bridge."""
    host.run(*f"iptables -t nat {place} -s 10.244.0.0/16 ! -o cni0 -j MASQUERADE".split())
    host.run(*f"ip6tables -t nat {place} -s fd00:244::/32 ! -o cni0 -j MASQUERADE".split())


def masquerading(host: Host, backend: str) -> None:
    host.conf |= {**DUAL, "ipMasq": True, "ipMasqBackend": backend}


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
def test_foreign_masquerade_does_not_take_pod_to_pod(host: Host, backend: str, order: str) -> None:
    masquerading(host, backend)
    pod = host.pod()
    if order == "before":
        foreign_masquerade(host)
    host.add(pod)
    if order == "after":
        foreign_masquerade(host)
    found = sources(host, pod, OTHER_NODES_POD, OTHER_NODES_POD6, OUTSIDE, OUTSIDE6)
    assert found == ("10.244.0.2", "fd00:244::2", NODE, NODE6)
    assert host.pings(pod, OTHER_NODES_POD) and host.pings(pod, OTHER_NODES_POD6)


@backends
def test_foreign_masquerade_put_first_gives_way_with_the_next_pod(host: Host, backend: str) -> None:
    masquerading(host, backend)
    pod, other = host.pods(2)
    host.add(pod)
    foreign_masquerade(host, "-I POSTROUTING 1")
    host.add(other)
    assert sources(host, pod, OTHER_NODES_POD, OTHER_NODES_POD6) == ("10.244.0.2", "fd00:244::2")
    rules = host.traces()["rules"]
    host.add(host.pod("third"))
    assert host.traces()["rules"] == rules


def test_foreign_masquerade_takes_pod_to_pod_where_nothing_of_ours_stands(host: Host) -> None:
    """The counter-proof: the rule of the test above does what is said of it."""
    foreign_masquerade(host)
    host.conf |= DUAL
    pod = host.pod()
    host.add(pod)
    assert sources(host, pod, OTHER_NODES_POD, OTHER_NODES_POD6) == (NODE, NODE6)


@backends
@pytest.mark.parametrize("mark", ["0x4000", "0x2000"])
def test_packets_marked_for_masquerade_stay_kube_proxys_and_portmaps(host: Host, backend: str, mark: str) -> None:
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
    host.conf["network"] = ["10.244.0.0/24", "fd00:244::/48"]  # what was pod to pod is outside from now on
    host.add(other)
    assert sources(host, pod, OTHER_NODES_POD, OTHER_NODES_POD6) == (NODE, "fd00:244::2")
    host.conf["network"] = DUAL["network"]
    third = host.pod("third")
    host.add(third)
    assert seen(host, third, OTHER_NODES_POD) == "10.244.0.4"


@backends
def test_two_networks_masquerade_each_its_own(host: Host, backend: str) -> None:
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


@backends
def test_every_range_set_is_masqueraded_and_none_to_another(host: Host, backend: str) -> None:
    masquerading(host, backend)
    del host.conf["subnet"], host.conf["network"]
    ranges = [[{"subnet": one}] for one in ("10.244.0.0/24", "10.250.0.0/24", "fd00:244::/64", "fd00:250::/64")]
    host.conf |= {"isDefaultGateway": True, "ipam": {"type": "host-local", "ranges": ranges}}
    pod, other = host.pods(2)
    host.add(pod)
    host.add(other)
    host.inside(pod, *["ip", "route", "add", "192.0.2.10", "via", "10.250.0.1", "src", "10.250.0.2"])
    assert sources(host, pod, OUTSIDE, OUTSIDE6) == (NODE, NODE6)
    host.inside(pod, *["ip", "route", "change", "192.0.2.10", "via", "10.244.0.1", "src", "10.244.0.2"])
    assert seen(host, pod, OUTSIDE, 98) == NODE
    host.inside(pod, *["ip", "route", "add", "10.250.0.3", "via", "10.244.0.1", "src", "10.244.0.2"])
    assert seen(host, pod, "10.250.0.3", receiver=other) == "10.244.0.2"


@backends
def test_ranges_the_runtime_says_are_masqueraded_while_a_pod_is_in_them(host: Host, backend: str) -> None:
    masquerading(host, backend)
    pods = host.pods(3)
    confs = [
        {
            **host.conf,
            "subnet": None,
            "network": None,
            "isDefaultGateway": True,
            "ipam": {"type": "host-local"},
            "runtimeConfig": {"ipRanges": [[{"subnet": subnet}]]},
        }
        for subnet in ("10.244.0.0/24", "fd00:244::/64", "10.244.0.0/24")
    ]
    for pod, conf in zip(pods, confs, strict=True):
        host.add(pod, conf)
    assert seen(host, pods[0], OUTSIDE) == seen(host, pods[2], OUTSIDE) == NODE
    assert seen(host, pods[1], OUTSIDE6) == NODE6
    host.delete(pods[0], confs[0])
    assert seen(host, pods[2], OUTSIDE) == NODE
    flush = {"nftables": "nft delete table inet cnictl", "iptables": "ip6tables -t nat -F"}
    host.run(*flush[backend].split())
    for pod, conf in ((pods[1], confs[1]), (pods[2], confs[2])):
        host.delete(pod, conf)
    assert "masquerade" not in host.traces()["rules"] and "CNICTL" not in host.traces()["rules"]


@backends
def test_subnets_of_another_ipam_plugin_are_masqueraded_while_a_pod_is_in_them(host: Host, backend: str) -> None:
    masquerading(host, backend)
    pods = host.pods(2)
    confs = [
        {
            **host.conf,
            "subnet": None,
            "network": None,
            "cniVersion": "0.4.0",
            "isDefaultGateway": True,
            "ipam": {
                "type": "static",
                "addresses": [{"address": f"10.244.0.{last}/24"}, {"address": f"fd00:244::{last}/64"}],
            },
        }
        for last in (5, 6)
    ]
    result = host.add(pods[0], confs[0])
    host.add(pods[1], confs[1])
    host.delete(pods[1], confs[1])
    assert sources(host, pods[0], OUTSIDE, OUTSIDE6) == (NODE, NODE6)
    assert host.plugin("CHECK", pods[0], confs[0], result).result == {}
    host.run(*("nft delete table inet cnictl" if backend == "nftables" else "ip6tables -t nat -F").split())
    assert "fd00:244::/64" in host.plugin("CHECK", pods[0], confs[0], result).error["msg"]
    host.add(pods[1], confs[1])
    assert host.plugin("CHECK", pods[0], confs[0], result).result == {}
    for pod, conf in zip(pods, confs, strict=True):
        host.delete(pod, conf)
    assert "masquerade" not in host.traces()["rules"] and "CNICTL" not in host.traces()["rules"]


def test_ip6tables_is_asked_for_where_a_subnet_needs_it_and_nowhere_else(host: Host) -> None:
    masquerading(host, "iptables")
    host.run("mkdir", "/run/tools")
    host.run("ln", "-s", *(f"/usr/sbin/{name}" for name in ("iptables", "iptables-restore")), "/run/tools")
    before = host.traces()
    dual, four = host.pods(2)
    failed = host.plugin("ADD", dual, PATH="/run/tools")
    assert failed.code == 2
    assert "ip6tables" in failed.error["msg"] and "fd00:244::/64" in failed.error["msg"]
    assert host.traces() == before
    del host.conf["ipMasqBackend"]  # nor is nft there: what is has to do
    host.conf |= {"subnet": "10.244.0.0/24", "network": "10.244.0.0/20"}
    host.add(four, PATH="/run/tools")
    assert seen(host, four, OUTSIDE) == NODE
    host.delete(four, PATH="/run/tools")


def test_nftables_rules_of_a_newer_reference_plugin_go_with_its_pod(host: Host) -> None:
    """What releases from 1.6.0 on make for two pods; ours is asked to delete one."""
    pod = host.pod("pod0")
    conf = {**host.conf, "type": "bridge", "ipMasq": True, "bridge": "cni0", "isGateway": True}
    conf["ipam"] = {"type": "host-local", "subnet": "10.244.0.0/24"}
    result = host.reference("bridge", "ADD", pod, conf).result
    network = "mynet"
    rules = "".join(
        f"add rule inet cni_plugins_masquerade masq_checks ip saddr == {address} ip daddr != 10.244.0.0/24 masquerade "
        f'comment "{sha(network)}-{sha(f"eth0:{container}")}, net: {network}, if: eth0, id: {container}"\n'
        for container, address in (("pod0", "10.244.0.2"), ("other", "10.244.0.9"))
    )
    host.run(
        "nft",
        "-f",
        "-",
        stdin="add table inet cni_plugins_masquerade\nadd chain inet cni_plugins_masquerade masq_checks\n" + rules,
    )
    host.run("iptables", "-t", "nat", "-F")  # and a flush of its iptables rules is no reason to fail
    host.delete(pod, prev=result)
    left = host.traces()["rules"]
    assert sha("eth0:other") in left and sha("eth0:pod0") not in left and "CNI-" not in left


def sha(text: str) -> str:
    """pkg/utils/utils.go, MustFormatHashWithPrefix(16, "", text)."""
    return hashlib.sha512(text.encode()).hexdigest()[:16]
