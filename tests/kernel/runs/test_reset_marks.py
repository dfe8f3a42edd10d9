"""A reset relies on cnictl's marks: it finds, shows and removes what carries them even if cnictl's files are lost."""

import json
from typing import Any

import pytest

from cnictl.lab.lab import Node
from tests.kernel.commands import CONF, at_terminal, call, cnictl, drifted, init, snapshot, start_pod
from tests.kernel.hints import applies, matches

pytestmark = pytest.mark.once

PEER = ("--peer", "10.244.1.0/24=10.0.10.51")
LOSE = "rm -rf /etc/cnictl /var/lib/cnictl /var/lib/cni /run/cnictl"
KINDS = ("links", "addresses", "routes", "nft", "iptables")


def without_forwarding(node: Node) -> dict[str, object]:
    """Return the host's snapshot without forwarding, whose former value is lost with the files."""
    return {kind: value for kind, value in snapshot(node).items() if kind in KINDS}


def findings(node: Node) -> list[dict[str, Any]]:
    """Return doctor's findings."""
    items: list[dict[str, Any]] = json.loads(cnictl(node, "doctor", "-o", "json", check=False).stdout)["items"]
    return items


RESET = "doctor.remnants._remnants: cnictl reset-node"


@applies(RESET)
@pytest.mark.parametrize("backend", ["nft", "iptables"])
def test_node_with_lost_files_is_found_shown_and_removed(node: Node, backend: str) -> None:
    node.run(["iptables", "-P", "FORWARD", "DROP"])
    node.run(["ip6tables", "-P", "FORWARD", "ACCEPT"])
    node.run(["iptables", "-t", "nat", "-P", "POSTROUTING", "ACCEPT"])
    before = without_forwarding(node)
    files = node.run(["find", "/etc", "/opt", "/usr/local/lib/cnictl", "-type", "f"], check=False).stdout
    init(node, *PEER, "--backend", backend)
    node.run(["sh", "-c", LOSE])
    for command in ("status", "doctor"):
        told = cnictl(node, command, check=False)
        assert told.status == 1
        assert "cni0" in told.stderr + told.stdout and "cnictl reset-node" in told.stderr + told.stdout
    preview = json.loads(cnictl(node, "reset-node", "--dry-run", "-o", "json").stdout)
    assert {"bridge/cni0", "route/10.244.1.0/24"} <= {step["resource"] for step in preview["steps"]}
    (printed,) = {finding["hint"]["command"] for finding in findings(node) if finding["id"] != "no-node"}
    assert matches(RESET, printed)
    done = at_terminal(node, "y", *printed.split()[1:])
    assert done.status == 0
    assert [finding["id"] for finding in findings(node)] == ["no-node"]
    assert "net.ipv4.ip_forward stays as it is" in done.stderr
    assert without_forwarding(node) == before
    assert node.run(["find", "/etc", "/opt", "/usr/local/lib/cnictl", "-type", "f"], check=False).stdout == files
    assert "nothing to remove" in cnictl(node, "reset-node", "--yes").stderr


@pytest.mark.parametrize("program", ["iptables", "ip6tables", "iptables-legacy"])
def test_rules_restored_at_boot_after_a_reset_are_found_anywhere(node: Node, program: str) -> None:
    subnet = "fd00:244::/64" if program.startswith("ip6") else "10.244.0.0/24"
    theirs = f"{program} -N THEIRS; {program} -A THEIRS -s {subnet} -j ACCEPT; {program} -A FORWARD -j THEIRS"
    node.run(["sh", "-ec", theirs])
    before = snapshot(node)
    node.run([f"{program}-restore", "--noflush"], stdin=f"""\
*filter
:CNICTL-FORWARD - [0:0]
-A CNICTL-FORWARD -s {subnet} -m comment --comment "cnictl:mynet" -j ACCEPT
-A FORWARD -m comment --comment "cnictl:mynet" -j CNICTL-FORWARD
-A THEIRS -s {subnet} -m comment --comment "cnictl:mynet" -j ACCEPT
COMMIT
*mangle
-A FORWARD -s {subnet} -m comment --comment "cnictl:old net" -j ACCEPT
COMMIT
""")  # fmt: skip
    told = cnictl(node, "status", check=False)
    assert told.status == 1
    assert (
        f"THEIRS -s {subnet} -m comment --comment" in told.stdout + told.stderr
        and "reset-node" in told.stdout + told.stderr
    )
    assert "nothing to remove" not in cnictl(node, "reset-node", "--yes").stderr
    tables = ("filter", "mangle")
    for table in tables:
        assert "cnictl" not in node.run([program, "-t", table, "-S"]).stdout.lower()
    assert "-A THEIRS" in node.run([program, "-S"]).stdout
    assert snapshot(node)["links"] == before["links"]


def test_unknown_networks_rules_and_learned_routes_are_removed_with_a_known_node(node: Node) -> None:
    before = snapshot(node)
    init(node, *PEER)
    node.run(["nft", "-f", "-"], stdin="""\
add chain inet cnictl masquerade-lost { type nat hook postrouting priority 95; }
add rule inet cnictl masquerade-lost ip saddr 10.9.0.0/24 masquerade comment "cnictl:lost 1a2b3c"
""")  # fmt: skip
    node.run(["sh", "-ec", "ip route add 10.9.1.0/24 via 10.0.10.51 proto 68; "
                           "ip route add 10.9.2.0/24 via 10.0.10.51 proto 67 table 77 metric 5; "
                           "ip route add blackhole 10.9.3.0/24 proto 68"])  # fmt: skip
    preview = cnictl(node, "reset-node", "--dry-run").stdout
    for named in ("masquerade-lost", "10.9.1.0/24", "table 77", "10.9.3.0/24"):
        assert named in preview
    cnictl(node, "reset-node", "--yes")
    assert snapshot(node) == before


def test_pod_without_a_record_blocks_a_reset_and_is_removed_with_force(node: Node) -> None:
    init(node)
    pod = start_pod(node, "pod")
    node.run(["sh", "-c", LOSE])
    refused = cnictl(node, "reset-node", "--yes", check=False)
    assert refused.status == 1
    assert f"pod ({pod.address}, unknown)" in refused.stderr and "--force" in refused.stderr
    assert refused.stdout == ""
    assert pod.pings("10.244.0.1")
    cnictl(node, "reset-node", "--yes", "--force")
    assert "cni0" not in node.run(["ip", "-br", "link"]).stdout
    assert "eth0" not in pod.run("ip", "-br", "link").stdout


def test_bridge_and_rules_that_are_not_ours_stay_on_a_host_without_files(node: Node) -> None:
    node.run(
        ["sh", "-ec", "ip link add cni0 type bridge; ip address add 10.244.0.1/24 dev cni0; ip link set cni0 up; "
                           "ip route add 10.244.1.0/24 via 10.0.10.51; iptables -N CNI-FORWARD; "
                           "mkdir -p /etc/sysctl.d; echo net.ipv4.ip_forward=1 > /etc/sysctl.d/99-cnictl.conf"]
    )  # fmt: skip
    before = snapshot(node)
    done = cnictl(node, "reset-node", "--yes")
    assert "nothing to remove" in done.stderr
    assert snapshot(node) == before


def test_changes_are_listed_and_refused_before_the_question(node: Node) -> None:
    init(node, *PEER)
    pod = start_pod(node, "pod")
    refused = at_terminal(node, "y", "reset-node")
    assert refused.status == 1
    assert "would cut off 1 pod" in refused.stderr and "Remove all" not in refused.stderr
    assert "not reached" not in refused.stdout
    listed = at_terminal(node, "n", "reset-node", "--force")
    assert listed.status == 1
    assert "remove the bridge cni0" in listed.stderr and f"delete the attachment of pod ({pod.address}" in listed.stderr
    assert listed.stderr.index("remove the bridge cni0") < listed.stderr.index("Remove all of this?")
    assert "nothing was changed" in listed.stderr
    assert drifted(node) == []
    assert pod.pings("10.244.0.1")
    assert at_terminal(node, "y", "reset-node", "--force").status == 0
    assert "cni0" not in node.run(["ip", "-br", "link"]).stdout


def test_manually_written_conf_on_a_host_without_files_leads_to_its_bridge_and_rules(node: Node) -> None:
    node.run(["iptables", "-P", "FORWARD", "ACCEPT"])  # creates iptables' own chains, which a reset leaves
    node.run(["ip6tables", "-P", "FORWARD", "ACCEPT"])
    before = without_forwarding(node)
    init(node)
    conf = json.loads(node.run(["cat", CONF]).stdout)
    request = {
        "cniVersion": "1.0.0",
        "name": "other",
        **conf["plugins"][0],
        "bridge": "other0",
        "network": "10.88.0.0/16",
        "subnet": "10.88.0.0/24",
        "macspoofchk": True,
        "portIsolation": True,
    }
    node.run(["ip", "netns", "add", "pod"])
    call(node, "ADD", "pod", request)
    node.run(["sh", "-c", LOSE])
    node.run(["ip", "netns", "delete", "pod"])
    shown = cnictl(node, "reset-node", "--dry-run").stdout
    assert "the isolation rules for veth" in shown and "bridge cnictl veth" in shown
    cnictl(node, "reset-node", "--yes", "--force")
    assert without_forwarding(node) == before
