"""Preflight reports host routes that conflict with a pod CIDR. An option ignores named findings."""

import json

import pytest

from cnictl.core.errors import Problem
from cnictl.lab.lab import Lab, Node
from cnictl.node.preflight import CHECKS
from cnictl.node.spec.node_spec import NodeSpec
from tests.kernel.cluster import shell
from tests.kernel.commands import INIT_OPTIONS, cnictl, drifted, start_pod
from tests.kernel.node.test_preflight import PEER, SPEC, errors, findings

pytestmark = pytest.mark.once

WITH_PEER = NodeSpec(subnets=SPEC.subnets, networks=SPEC.networks, peers=(PEER,))
INIT = ("init-node", *INIT_OPTIONS, "--peer", "10.244.1.0/24=10.0.10.51")
SIX = NodeSpec(subnets=("fd00:244::/64",), networks=("fd00:244::/48",))
OTHERS = "give that node another pod CIDR, or remove the route from the configuration that adds it"


@pytest.mark.parametrize(
    ("route", "spec"),
    [
        ("10.0.0.0/8 via 10.0.10.51", WITH_PEER),
        ("0.0.0.0/1 via 10.0.10.51", WITH_PEER),
        ("10.244.0.0/16 via 10.0.10.51", WITH_PEER),
        ("10.244.0.0/20 via 10.0.10.51", WITH_PEER),
        ("10.244.0.0/19 dev eth0", WITH_PEER),
        ("blackhole 10.0.0.0/8", WITH_PEER),
        ("10.244.0.0/25 via 10.0.10.51 table 52", WITH_PEER),
        ("10.244.9.0/24 via 10.0.10.51", WITH_PEER),
        ("fd00::/8 dev eth0", SIX),
    ],
)
def test_route_that_covers_the_pod_network_or_is_outside_it_passes(
    shared_node: Node, route: str, spec: NodeSpec
) -> None:
    shell(shared_node, f"ip route add {route}")
    try:
        assert errors(shared_node, spec) == {}
    finally:
        shell(shared_node, f"ip route del {route}")


@pytest.mark.parametrize(
    ("route", "subject", "hint"),
    [
        ("10.244.0.0/24 via 10.0.10.51", "10.244.0.0/24", "--subnet 10.244.2.0/24"),
        ("blackhole 10.244.0.128/25", "10.244.0.0/24", "--subnet 10.244.2.0/24"),
        ("10.244.1.64/26 via 10.0.2.9", "10.244.1.0/24", OTHERS),
        ("prohibit 10.244.1.64/26", "10.244.1.0/24", OTHERS),
    ],
)
def test_route_inside_a_pod_cidr_is_an_error(shared_node: Node, route: str, subject: str, hint: str) -> None:
    shell(shared_node, f"ip route add 10.0.0.0/8 via 10.0.10.51; ip route add {route}")
    try:
        finding = errors(shared_node, WITH_PEER)["subnet-overlap"]
        assert finding.subject == subject
        assert hint in finding.hint
        assert "10.0.0.0/8" not in finding.hint and "ip route del" not in finding.hint
    finally:
        shell(shared_node, f"ip route del 10.0.0.0/8; ip route del {route}")


def test_hosts_own_address_and_gateway_in_a_pod_cidr_are_errors(shared_node: Node) -> None:
    spec = NodeSpec(subnets=("10.0.0.0/24",), networks=("10.0.0.0/16",))
    told = [finding for finding in findings(shared_node, spec) if finding.name == "subnet-overlap"]
    assert {finding.message for finding in told} >= {
        "overlaps the host's own address 10.0.0.210 on eth0",
        "contains the default gateway 10.0.0.1, which would become unreachable",
    }
    assert not any("del" in finding.hint for finding in told)


def test_pods_work_beside_a_route_that_covers_their_network(lab: Lab) -> None:
    here, there = lab.nodes
    for node, other in ((here, there), (there, here)):
        shell(node, "ip route add 10.0.0.0/8 via 10.0.0.1; ip route add 0.0.0.0/1 via 10.0.0.1")
        peer = f"{other.pod_cidr}={other.address}"
        cnictl(node, "init-node", "--subnet", node.pod_cidr, "--network", "10.244.0.0/20", "--peer", peer)
    pod, far = start_pod(here, "a"), start_pod(there, "b")
    assert pod.pings(far.address)
    assert cnictl(here, "route", "list").status == 0
    done = cnictl(here, "doctor", check=False)
    assert done.status == 0, done.stdout


def test_rule_that_would_capture_pod_traffic_is_a_warning_before_any_change(shared_node: Node) -> None:
    shell(shared_node, "ip route add default dev eth0 table 52; ip rule add priority 5270 lookup 52")
    try:
        (told,) = [finding for finding in findings(shared_node, WITH_PEER) if finding.name == "policy-rules"]
        assert (told.severity, told.subject) == ("warning", "rule 5270")
        assert "5270: from all lookup 52" in told.message
        shell(shared_node, told.hint)
        assert not [finding for finding in findings(shared_node, WITH_PEER) if finding.name == "policy-rules"]
    finally:
        shell(shared_node, "ip rule del priority 5270; ip rule del priority 5269; ip route flush table 52")


def test_finding_is_ignored_by_name_and_the_record_says_so(node: Node) -> None:
    shell(node, "touch /etc/cni/net.d/05-other.conf; ip route add 10.244.1.64/26 via 10.0.2.9")
    refused = cnictl(node, *INIT, check=False)
    assert refused.status == 1
    assert "2 preflight checks failed" in refused.stderr
    assert "--ignore subnet-overlap --ignore conf-order" in refused.stderr
    half = cnictl(node, *INIT, "--ignore", "conf-order", check=False)
    assert half.status == 1
    assert "ignored error [conf-order]" in half.stderr
    assert "\nerror [subnet-overlap]" in f"\n{half.stderr}"
    done = cnictl(node, *INIT, "--ignore", "conf-order", "--ignore", "Subnet-Overlap", "-o", "json")
    accepted = {
        finding["name"]: finding["ignored"]
        for finding in json.loads(done.stdout)["findings"]
        if finding["severity"] == "error"
    }
    assert accepted == {"conf-order": True, "subnet-overlap": True}
    (run,) = json.loads(cnictl(node, "history", "-o", "json").stdout)["items"]
    assert run["ignored"] == ["conf-order", "subnet-overlap"]
    assert "ignored preflight checks: conf-order, subnet-overlap" in cnictl(node, "history", "1").stderr
    assert drifted(node) == []
    cnictl(node, *INIT, "--ignore", "all", "--mtu", "1400")
    assert cnictl(node, "doctor", "--only", "overlap", check=False).status == 1


@pytest.mark.parametrize(
    ("value", "status", "said"),
    [
        ("overlap", 2, f"the checks are: {', '.join(name for name in CHECKS if name != 'root')}, all"),
        ("root", 2, "preflight check root can't be ignored"),
        ("all,nonsense", 2, "there is no preflight check 'nonsense'"),
    ],
)
def test_name_that_cannot_be_ignored_is_a_usage_error(shared_node: Node, value: str, status: int, said: str) -> None:
    refused = cnictl(shared_node, *INIT, "--ignore", value, check=False)
    assert (refused.status, said in refused.stderr) == (status, True), refused.stderr


def test_foreign_file_is_not_overwritten_even_if_its_finding_is_ignored(node: Node) -> None:
    shell(node, "echo theirs > /opt/cni/bin/cnictl-bridge")
    refused = cnictl(node, *INIT, "--ignore", "all", check=False)
    assert refused.status == 1
    assert "not cnictl's" in refused.stderr
    assert shell(node, "cat /opt/cni/bin/cnictl-bridge") == "theirs\n"
    with pytest.raises(Problem):
        shell(node, "ip link show cni0")
