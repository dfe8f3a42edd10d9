"""`init-node` configures a host as its options say, and `apply` restores that state."""

import json

import pytest

from cnictl.lab.lab import Lab, Node
from tests.kernel.commands import (
    CONF,
    INIT_OPTIONS,
    NETWORK,
    call,
    cnictl,
    drifted,
    init,
    outcomes,
    snapshot,
    start_pod,
)

PEER = ("--peer", "10.244.1.0/24=10.0.10.51")


def test_fresh_host_becomes_a_node_and_a_second_run_changes_nothing(lab: Lab) -> None:
    node = lab.nodes[0]
    first = init(node, *PEER, "-o", "json")
    assert set(outcomes(first).values()) == {"changed"}
    made = snapshot(node)

    second = init(node, *PEER, "-o", "json")
    assert set(outcomes(second).values()) == {"unchanged"}
    assert "nothing to change" in init(node, *PEER).stderr
    assert snapshot(node) == made
    assert drifted(node) == []


def test_two_initialised_nodes_carry_pods_to_each_other_and_outside(lab: Lab) -> None:
    here, there = lab.nodes
    init(here, "--peer", f"{there.pod_cidr}={there.address}")
    init(there, "--peer", f"{here.pod_cidr}={here.address}")
    pod, sibling, far = start_pod(here, "a"), start_pod(here, "b"), start_pod(there, "c")
    for target in (here.address, there.address, sibling.address, far.address, lab.outside.address):
        assert pod.pings(target), target


def test_conf_is_written_last(node: Node) -> None:
    steps = json.loads(init(node, "-o", "json").stdout)["steps"]
    made = [step["resource"].partition("/")[0] for step in steps]
    assert made[-1] == "cni-conf"
    assert {"bridge", "masquerade", "forward", "plugin"} <= set(made)


def test_dry_run_shows_the_commands_and_changes_nothing(node: Node) -> None:
    before = snapshot(node)
    shown = init(node, *PEER, "--dry-run").stdout
    for command in (
        "sysctl -w net.ipv4.ip_forward=1",
        "ip link add cni0 address",
        "ip address add 10.244.0.1/24",
        "nft -f -",
        "iptables -w -I FORWARD 1",
        "ip route add 10.244.1.0/24 via 10.0.10.51 dev eth0 proto 67",
        CONF,
    ):
        assert command in shown
    assert json.loads(init(node, "--dry-run", "-o", "json").stdout)["would_change"] > 5
    after = snapshot(node)
    assert set(after["tree"]) ^ set(before["tree"]) == set()
    assert after == before


def test_ip_accepts_the_commands_shown(node: Node) -> None:
    steps = json.loads(init(node, *PEER, "--dry-run", "-o", "json").stdout)["steps"]
    kinds = ("sysctl", "bridge", "address", "netfilter", "masquerade", "forward", "route")
    for step in steps:
        if step["resource"].partition("/")[0] in kinds:
            node.run(["sh", "-ec", step["command"]])
    done = outcomes(init(node, *PEER, "-o", "json"))
    typed = {resource: outcome for resource, outcome in done.items() if resource.partition("/")[0] in kinds}
    assert {outcome for resource, outcome in typed.items() if not resource.startswith("route")} == {"unchanged"}, typed


@pytest.mark.once
def test_other_arguments_move_the_node(node: Node) -> None:
    init(node, *PEER)
    moved = cnictl(
        node, "init-node", "--subnet", "10.244.4.0/24", "--network", NETWORK, "--bridge", "br-pods",
        "--name", "pods", "--peer", "10.244.2.0/24=10.0.2.53", "--prune", "--mtu", "1400", "--backend", "iptables",
    )  # fmt: skip
    assert moved.status == 0
    assert drifted(node) == []
    links = {link["ifname"]: link for link in json.loads(node.run(["ip", "-d", "-j", "link"]).stdout)}
    assert "cni0" not in links
    assert links["br-pods"]["mtu"] == 1400
    assert links["br-pods"]["ifalias"] == "cnictl:pods"
    routes = {route["dst"]: route for route in json.loads(node.run(["ip", "-j", "route"]).stdout)}
    assert "10.244.1.0/24" not in routes and "10.244.0.0/24" not in routes
    assert routes["10.244.2.0/24"]["gateway"] == "10.0.2.53"
    assert "10.244.0.0/24" not in node.run(["nft", "list", "ruleset"]).stdout
    assert "mynet" not in node.run(["iptables-save"]).stdout
    conf = json.loads(node.run(["cat", CONF]).stdout)
    assert (conf["name"], conf["plugins"][0]["bridge"], conf["plugins"][0]["subnet"]) == (
        "pods", "br-pods", "10.244.4.0/24",
    )  # fmt: skip
    assert start_pod(node, "pod").address.startswith("10.244.4.")


@pytest.mark.once
def test_moved_node_resets_to_the_state_before_the_first_run(node: Node) -> None:
    before = snapshot(node)
    init(node, *PEER)
    cnictl(node, "init-node", "--subnet", "10.244.4.0/24", "--network", NETWORK, "--bridge", "br-pods", "--name", "p")
    cnictl(node, "reset-node", "--yes")
    after = snapshot(node)
    assert set(after["tree"]) ^ set(before["tree"]) == set()
    assert after == before


@pytest.mark.once
def test_live_pods_refuse_a_move_and_force_detaches_them(node: Node) -> None:
    init(node)
    pod = start_pod(node, "pod")
    made = snapshot(node)
    move = ("init-node", "--subnet", "10.244.4.0/24", "--network", NETWORK)
    refused = cnictl(node, *move, check=False)
    assert refused.status == 1
    assert "would cut off 1 pod" in refused.stderr and pod.address in refused.stderr
    assert snapshot(node)["links"] == made["links"]

    done = cnictl(node, *move, "--force")
    assert "deleted the attachment of pod" in done.stderr
    assert "eth0" not in pod.run("ip", "-br", "link").stdout
    call(node, "DEL", "pod")
    assert drifted(node) == []


def test_peers_and_nat_move_under_live_pods(node: Node) -> None:
    init(node, *PEER)
    pod = start_pod(node, "pod")
    assert init(node, "--peer", "10.244.2.0/24=10.0.2.53", "--no-nat").status == 0
    assert pod.pings("10.244.0.1")


@pytest.mark.once
def test_manually_created_bridge_is_adopted_and_kept(node: Node) -> None:
    node.run(["sh", "-ec", "ip link add cni0 type bridge; ip address add 10.244.0.1/24 dev cni0; ip link set cni0 up"])
    before = snapshot(node)
    mac = node.run(["cat", "/sys/class/net/cni0/address"]).stdout
    done = outcomes(init(node, "-o", "json"))
    assert (done["bridge/cni0"], done["address/cni0"]) == ("changed", "unchanged")  # the run fixes the bridge's MAC
    assert start_pod(node, "pod").pings("10.244.0.1")
    assert node.run(["cat", "/sys/class/net/cni0/address"]).stdout == mac
    assert drifted(node) == []
    cnictl(node, "reset-node", "--yes", "--force")
    node.run(["ip", "netns", "delete", "pod"])
    after = snapshot(node)
    for kind in ("routes", "nft", "iptables", "tree", "contents"):
        assert after[kind] == before[kind], kind
    link = next(link for link in after["links"] if link["ifname"] == "cni0")
    was = next(link for link in before["links"] if link["ifname"] == "cni0")
    assert link["linkinfo"]["info_data"]["nf_call_iptables"] == was["linkinfo"]["info_data"]["nf_call_iptables"]
    assert (link["mtu"], "UP" in link["flags"]) == (was["mtu"], "UP" in was["flags"])


@pytest.mark.once
def test_manually_added_route_is_adopted_and_kept(node: Node) -> None:
    node.run(["ip", "route", "add", "10.244.1.0/24", "via", "10.0.10.51"])
    before = snapshot(node)
    assert outcomes(init(node, *PEER, "-o", "json"))["route/10.244.1.0/24"] == "unchanged"
    cnictl(node, "reset-node", "--yes")
    after = snapshot(node)
    assert set(after["tree"]) ^ set(before["tree"]) == set()
    assert after == before


def test_drift_is_shown_and_repaired(node: Node) -> None:
    init(node, *PEER)
    node.run(["sh", "-ec", "ip link set eth0 down; ip link set eth0 up; ip route add default via 10.0.0.1"])
    node.run(["nft", "flush", "ruleset"])
    node.run(["sysctl", "-qw", "net.ipv4.ip_forward=0"])
    node.run(["ip", "link", "delete", "cni0"])
    assert drifted(node) == [
        "sysctl/net.ipv4.ip_forward", "bridge/cni0", "address/cni0", "netfilter/cni0", "masquerade/mynet",
        "forward/iptables", "route/10.244.1.0/24",
    ]  # fmt: skip
    assert cnictl(node, "status", check=False).status == 1
    cnictl(node, "apply")
    assert drifted(node) == []
    assert cnictl(node, "status").status == 0


@pytest.mark.once
def test_edited_node_file_is_applied_and_its_comments_stay(node: Node) -> None:
    init(node, *PEER)
    node.run(["sed", "-i", "s/^bridge = .*/bridge = 'br-pods'  # renamed/", "/etc/cnictl/node.toml"])
    cnictl(node, "apply")
    assert drifted(node) == []
    assert "cni0" not in node.run(["ip", "-br", "link"]).stdout
    cnictl(node, "route", "del-peer", "10.244.1.0/24")
    assert "# renamed" in node.run(["cat", "/etc/cnictl/node.toml"]).stdout


USAGE_ERRORS = [
    (("--subnet", "10.244.0.5/24", "--network", NETWORK), "10.244.0.5/24"),
    (("--subnet", "10.244.0.0/31", "--network", NETWORK), "10.244.0.0/31"),
    (("--subnet", "10.245.0.0/24", "--network", NETWORK), "10.245.0.0/24"),
    (("--subnet", "10.244.0.300/24", "--network", NETWORK), "300"),
    (("--subnet", "10.244.0.0/24"), "--network"),
    ((*INIT_OPTIONS, "--peer", "10.244.0.0/24=10.0.10.51"), "10.244.0.0/24"),
    ((*INIT_OPTIONS, "--peer", "10.244.0.128/25=10.0.10.51"), "10.244.0.128/25"),
    ((*INIT_OPTIONS, "--peer", "10.244.1.0/24=10.0.0.210"), "10.0.0.210"),
    ((*INIT_OPTIONS, "--peer", "10.244.1.0/24"), "10.244.1.0/24"),
    ((*INIT_OPTIONS, "--peer", "10.244.1.0/24=10.0.15.255"), "the broadcast address of 10.0.0.0/20"),
    ((*INIT_OPTIONS, "--peer", "10.244.2.0/23=10.0.10.51", "--peer", "10.244.3.0/24=10.0.10.52"), "10.244.3.0/24"),
    ((*INIT_OPTIONS, "--peer", "10.99.1.0/24=10.0.10.51"), "10.99.1.0/24"),
    ((*INIT_OPTIONS, "--bridge", "a-bridge-with-a-name"), "a-bridge-with-a-name"),
    ((*INIT_OPTIONS, "--backend", "ipfw"), "ipfw"),
    ((*INIT_OPTIONS, "--name", "my/net"), "my/net"),
]


@pytest.mark.once
def test_every_usage_error_is_one_line_and_changes_nothing(node: Node) -> None:
    before = snapshot(node)
    for words, named in USAGE_ERRORS:
        refused = cnictl(node, "init-node", *words, check=False)
        assert refused.status == 2, (words, refused.stderr)
        assert refused.stdout == ""
        assert len(refused.stderr.splitlines()) == 1, refused.stderr
        assert named in refused.stderr
    after = snapshot(node)
    assert set(after["tree"]) ^ set(before["tree"]) == set()
    assert after == before


@pytest.mark.parametrize("command", [("status",), ("apply",), ("nat", "show"), ("route", "list"), ("bridge", "show")])
def test_host_that_is_not_set_up_gets_one_line_and_a_hint(shared_node: Node, command: tuple[str, ...]) -> None:
    refused = cnictl(shared_node, *command, check=False)
    assert refused.status == 1
    assert (
        refused.stderr.startswith("cnictl: this host is not set up as a cnictl node")
        and "hint: cnictl init-node" in refused.stderr
    )
