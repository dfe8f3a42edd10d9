"""`init-node` takes a host to what it is asked for, or leaves it as it was."""

import json

import pytest

from cnictl.lab.lab import Lab, Node

from .operator import (
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
    wait_until,
)

PEER = ("--peer", "10.244.1.0/24=10.0.10.51")


def test_fresh_host_becomes_a_node_and_a_second_run_changes_nothing(lab: Lab) -> None:
    node = lab.nodes[0]
    first = init(node, *PEER, "-o", "json")
    assert set(outcomes(first).values()) == {"changed"}
    made = snapshot(node)

    second = init(node, *PEER, "-o", "json")
    assert set(outcomes(second).values()) == {"already so"}
    assert "nothing to change" in init(node, *PEER).stderr
    assert snapshot(node) == made
    assert drifted(node) == []


def test_two_initialised_nodes_carry_pods_to_each_other_and_outside(lab: Lab) -> None:
    one, other = lab.nodes
    init(one, "--peer", f"{other.pod_cidr}={other.address}")
    init(other, "--peer", f"{one.pod_cidr}={one.address}")
    pod, sibling, far = start_pod(one, "a"), start_pod(one, "b"), start_pod(other, "c")
    for target in (one.address, other.address, sibling.address, far.address, lab.outside.address):
        assert pod.pings(target), target


def test_conf_comes_last(node: Node) -> None:
    steps = json.loads(init(node, "-o", "json").stdout)["steps"]
    made = [step["resource"].partition("/")[0] for step in steps]
    assert made.index("cni-conf") > max(made.index(kind) for kind in ("bridge", "masquerade", "forward", "plugin"))


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


def test_shown_ip_commands_are_taken_by_ip(node: Node) -> None:
    steps = json.loads(init(node, *PEER, "--dry-run", "-o", "json").stdout)["steps"]
    kinds = ("sysctl", "bridge", "address", "netfilter", "masquerade", "forward", "route")
    for step in steps:
        if step["resource"].partition("/")[0] in kinds:
            node.run(["sh", "-ec", step["command"]])
    done = outcomes(init(node, *PEER, "-o", "json"))
    typed = {resource: outcome for resource, outcome in done.items() if resource.partition("/")[0] in kinds}
    assert {outcome for resource, outcome in typed.items() if not resource.startswith("route")} == {"already so"}, typed


def test_unwritable_conf_folder_undoes_everything(node: Node) -> None:
    node.run(["sh", "-ec", "rm -rf /etc/cni/net.d; mkdir -p /etc/cni/net.d; mount -t tmpfs -o ro none /etc/cni/net.d"])
    before = snapshot(node)
    failed = init(node, *PEER, "-o", "json", check=False)
    assert failed.status == 1
    said = json.loads(failed.stdout)
    assert failed.stderr.strip()
    if said["steps"]:  # found by carrying it out, not by the checks before
        assert {step["outcome"] for step in said["steps"]} <= {"undone", "failed", "not reached"}
    assert _without_journal(snapshot(node)) == _without_journal(before)


def test_failing_route_undoes_everything(node: Node) -> None:
    node.run(["ip", "link", "add", "dead", "type", "dummy"], check=False)
    node.run(["ip", "link", "add", "dead", "type", "veth", "peer", "name", "dead0"], check=False)
    before = snapshot(node)
    # the link is named and there, so that only the kernel can refuse: no address of it reaches the peer
    failed = init(node, "--peer", "10.244.1.0/24=10.0.10.51%dead", "-o", "json", check=False)
    assert failed.status == 1
    assert _without_journal(snapshot(node)) == _without_journal(before)


FULL = "mkdir -p /etc/cni/net.d && mount -t tmpfs -o nr_inodes=1,mode=755 none /etc/cni/net.d"
"""A conf folder that anybody would call writable, and that has no room for a file."""


def test_failure_at_the_last_step_takes_back_all_the_others(node: Node) -> None:
    node.run(["sh", "-ec", FULL])
    before = snapshot(node)
    failed = init(node, *PEER, "-o", "json", check=False)
    assert failed.status == 1
    assert "No space left" in failed.stderr
    done = outcomes(failed)
    assert done.pop("cni-conf/10-cnictl.conflist") == "failed"
    assert set(done.values()) <= {"undone", "not reached"}
    assert done["bridge/cni0"] == done["plugin/cnictl-bridge"] == done["route/10.244.1.0/24"] == "undone"
    assert _without_journal(snapshot(node)) == _without_journal(before)

    node.run(["umount", "/etc/cni/net.d"])
    assert set(outcomes(init(node, *PEER, "-o", "json")).values()) == {"changed"}


def _without_journal(found: dict[str, object]) -> dict[str, object]:
    """A run that failed leaves its journal, which says what happened."""
    tree = found["tree"]
    assert isinstance(tree, list)
    return {**found, "tree": [line for line in tree if not line.startswith(("/var/lib/cnictl", "/run/cnictl"))]}


def test_failed_move_leaves_the_node_that_was(node: Node) -> None:
    init(node, *PEER)
    made = snapshot(node)
    node.run(["sh", "-ec", "umask 022; cp -a /etc/cni/net.d /tmp/conf && " + FULL.replace("=1", "=2")])
    node.run(["sh", "-ec", f"cp /tmp/conf/* {CONF}"])
    failed = cnictl(
        node, "init-node", "--subnet", "10.244.4.0/24", "--network", NETWORK, "--bridge", "br-pods", "-o", "json",
        check=False,
    )  # fmt: skip
    assert failed.status == 1
    assert outcomes(failed)["bridge/br-pods"] == "undone", failed.stderr
    node.run(["umount", "/etc/cni/net.d"])
    now = snapshot(node)
    for kind in ("sysctl", "routes", "nft", "iptables", "contents"):
        assert _settled(now[kind]) == _settled(made[kind]), kind
    assert drifted(node) == []


def _settled(value: object) -> object:
    """In one order: the bridge that was put back is a new link, its link-local routes another MAC's."""
    if not isinstance(value, list):
        return value
    return sorted(json.dumps(one, sort_keys=True) for one in value if "fe80" not in json.dumps(one))


def test_other_arguments_move_the_node(node: Node) -> None:
    init(node, *PEER)
    moved = cnictl(
        node, "init-node", "--subnet", "10.244.4.0/24", "--network", NETWORK, "--bridge", "br-pods",
        "--name", "pods", "--peer", "10.244.2.0/24=10.0.2.53", "--mtu", "1400", "--backend", "iptables",
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


def test_moved_node_resets_to_what_was_before_the_first_run(node: Node) -> None:
    before = snapshot(node)
    init(node, *PEER)
    cnictl(node, "init-node", "--subnet", "10.244.4.0/24", "--network", NETWORK, "--bridge", "br-pods", "--name", "p")
    cnictl(node, "reset-node", "--yes")
    after = snapshot(node)
    assert set(after["tree"]) ^ set(before["tree"]) == set()
    assert after == before


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


def test_hand_made_bridge_is_adopted_and_kept(node: Node) -> None:
    node.run(["sh", "-ec", "ip link add cni0 type bridge; ip address add 10.244.0.1/24 dev cni0; ip link set cni0 up"])
    before = snapshot(node)
    done = outcomes(init(node, "-o", "json"))
    assert done["bridge/cni0"] == done["address/cni0"] == "already so"
    assert start_pod(node, "pod").pings("10.244.0.1")
    cnictl(node, "reset-node", "--yes", "--force")
    node.run(["ip", "netns", "delete", "pod"])
    after = snapshot(node)
    for kind in ("routes", "nft", "iptables", "tree", "contents"):
        assert after[kind] == before[kind], kind
    link = next(link for link in after["links"] if link["ifname"] == "cni0")
    was = next(link for link in before["links"] if link["ifname"] == "cni0")
    assert link["linkinfo"]["info_data"]["nf_call_iptables"] == was["linkinfo"]["info_data"]["nf_call_iptables"]
    assert (link["mtu"], "UP" in link["flags"]) == (was["mtu"], "UP" in was["flags"])


def test_hand_made_route_is_adopted_and_kept(node: Node) -> None:
    node.run(["ip", "route", "add", "10.244.1.0/24", "via", "10.0.10.51"])
    before = snapshot(node)
    assert outcomes(init(node, *PEER, "-o", "json"))["route/10.244.1.0/24"] == "already so"
    cnictl(node, "reset-node", "--yes")
    after = snapshot(node)
    assert set(after["tree"]) ^ set(before["tree"]) == set()
    assert after == before


def test_run_cut_off_is_gone_on_with_and_can_be_reset(node: Node) -> None:
    before = snapshot(node)
    init(node, *PEER)
    last = node.run(["sh", "-c", "ls /var/lib/cnictl/journal/*"]).stdout.split()[-1]
    node.run(["sed", "-i", '/"end"/d', last])  # as a power cut leaves it
    node.run(["ip", "link", "delete", "cni0"])
    node.run(["rm", CONF])
    again = init(node, *PEER)
    assert "the last run was cut off at" in again.stderr
    assert drifted(node) == []
    cnictl(node, "reset-node", "--yes")
    after = snapshot(node)
    assert set(after["tree"]) ^ set(before["tree"]) == set()
    assert after == before


def test_drift_is_told_and_mended(node: Node) -> None:
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
    ((*INIT_OPTIONS, "--peer", "10.244.2.0/23=10.0.10.51", "--peer", "10.244.3.0/24=10.0.10.52"), "10.244.3.0/24"),
    ((*INIT_OPTIONS, "--peer", "10.99.1.0/24=10.0.10.51"), "10.99.1.0/24"),
    ((*INIT_OPTIONS, "--bridge", "a-bridge-with-a-name"), "a-bridge-with-a-name"),
    ((*INIT_OPTIONS, "--backend", "ipfw"), "ipfw"),
    ((*INIT_OPTIONS, "--name", "my/net"), "my/net"),
]


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
def test_host_that_is_no_node_is_told_so_in_one_line_and_its_mend(shared_node: Node, command: tuple[str, ...]) -> None:
    refused = cnictl(shared_node, *command, check=False)
    assert refused.status == 1
    assert (
        refused.stderr.startswith("cnictl: this host is no cnictl node") and "mend: cnictl init-node" in refused.stderr
    )


def test_apply_mends_what_it_can_where_one_peer_is_out_of_reach(node: Node) -> None:
    """As at boot, when a link is late: the node must not lose its bridge over that."""
    node.run(["ip", "link", "add", "late", "type", "veth", "peer", "name", "late0"])
    node.run(["sh", "-ec", "ip address add 10.77.0.1/24 dev late; ip link set late up; ip link set late0 up"])
    init(node, *PEER, "--peer", "10.244.2.0/24=10.77.0.2%late")
    node.run(["ip", "address", "flush", "dev", "late"])
    node.run(["ip", "link", "delete", "cni0"])
    node.run(["nft", "flush", "ruleset"])
    failed = cnictl(node, "apply", "-o", "json", check=False)
    assert failed.status == 1
    assert {resource for resource, outcome in outcomes(failed).items() if outcome == "failed"} == {
        "route/10.244.2.0/24"
    }
    assert drifted(node) == ["route/10.244.2.0/24"]


def test_terminated_run_takes_back_what_it_did(node: Node) -> None:
    """The plugin's self-test takes long enough to be met; whatever is met, nothing is left."""
    before = snapshot(node)
    command = " ".join(["cnictl init-node", *INIT_OPTIONS, *PEER])
    running = node.popen(["sh", "-c", f"{command} & echo $! > /tmp/pid; wait $!"])
    wait_until(lambda: "cni0" in node.run(["ip", "-br", "link"]).stdout, "the bridge is made", 30)
    node.run(["sh", "-c", "kill -TERM $(cat /tmp/pid)"])
    running.communicate(timeout=60)
    assert running.returncode == 130
    assert _without_journal(snapshot(node)) == _without_journal(before)


def test_two_runs_at_once_wait_for_each_other(node: Node) -> None:
    running = [node.popen(["cnictl", "init-node", *INIT_OPTIONS, *PEER, "-o", "json"]) for _ in range(2)]
    said = [process.communicate(timeout=120) for process in running]
    assert [process.returncode for process in running] == [0, 0], said
    changed = sorted(json.loads(stdout)["changed"] for stdout, _ in said)
    assert changed[0] == 0 < changed[1]
    assert drifted(node) == []


@pytest.mark.parametrize("step", ["sysctl", "bridge", "masquerade", "forward", "plugin"])
def test_killed_run_is_swept_up_by_a_reset(node: Node, step: str) -> None:
    before = snapshot(node)
    command = " ".join(["cnictl init-node", *INIT_OPTIONS, *PEER])
    running = node.popen(["sh", "-c", f"{command} & echo $! > /tmp/pid; wait $!"])
    wait_until(
        lambda: f'"resource": "{step}/' in node.run(["sh", "-c", "cat /var/lib/cnictl/journal/*"], check=False).stdout,
        f"the {step} is begun",
        30,
    )
    node.run(["sh", "-c", "kill -KILL $(cat /tmp/pid)"])
    running.communicate(timeout=60)
    cnictl(node, "reset-node", "--yes")
    after = snapshot(node)
    assert set(after["tree"]) ^ set(before["tree"]) == set()
    assert after == before
