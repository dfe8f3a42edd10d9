"""Commands accept a pod's usual names, and the error for swapped arguments contains the right command."""

import json
from collections.abc import Iterator

import pytest

from cnictl.lab.lab import Lab, Node
from tests.kernel.cluster import PINGS
from tests.kernel.commands import CONF, PLUGIN, cnictl, init

pytestmark = pytest.mark.once


@pytest.fixture(scope="module")
def node() -> Iterator[Node]:
    """A node with a peer, and with a pod that has a Kubernetes name."""
    with Lab(nodes=1) as lab:
        node = lab.nodes[0]
        init(node, "--peer", "10.244.1.0/24=10.0.10.51")
        node.run(["ip", "netns", "add", "c0ffee12"])
        conf = json.loads(node.run(["cat", CONF]).stdout)
        request = {"cniVersion": conf["cniVersion"], "name": conf["name"], **conf["plugins"][0]}
        environment = {
            "CNI_COMMAND": "ADD", "CNI_CONTAINERID": "c0ffee12", "CNI_NETNS": "/run/netns/c0ffee12",
            "CNI_IFNAME": "eth0", "CNI_PATH": "/opt/cni/bin",
            "CNI_ARGS": "IgnoreUnknown=1;K8S_POD_NAMESPACE=default;K8S_POD_NAME=web",
        }  # fmt: skip
        node.run([PLUGIN], stdin=json.dumps(request), env=environment)
        yield node


@pytest.mark.parametrize("who", ["10.244.0.2", "10.244.0.2/24", "web", "default/web", "c0ffee12", "c0ff"])
def test_pod_is_known_to_every_command_by_each_of_its_names(node: Node, who: str) -> None:
    assert json.loads(cnictl(node, "ipam", "show", who, "-o", "json").stdout)["items"][0]["address"] == "10.244.0.2"
    freed = json.loads(cnictl(node, "ipam", "release", who, "--force", "--dry-run", "-o", "json").stdout)
    assert "10.244.0.2" in json.dumps(freed)
    assert json.loads(cnictl(node, "pod", who, "--to", who, "-o", "json").stdout)["way"]["to"] == "10.244.0.2"
    assert [call["verb"] for call in json.loads(cnictl(node, "logs", who, "-o", "json").stdout)["items"]] == ["ADD"]
    tested = ("test-connectivity", "--from", who, "--pod", who, *PINGS, "-o", "json")
    report = cnictl(node, *tested, check=False).stdout
    checks = json.loads(report)["checks"]
    assert {check["from"] for check in checks} == {"10.244.0.2"}
    assert "10.244.0.2" in [check["to"] for check in checks if check["check"] == "pod-same-host"]


@pytest.mark.parametrize(
    ("words", "message", "hint"),
    [
        (("route", "add-peer", "10.0.10.52", "10.244.2.0/24"), "wrong way round",
         "cnictl route add-peer 10.244.2.0/24=10.0.10.52"),
        (("route", "del-peer", "10.0.10.51"), "is the address of the peer", "cnictl route del-peer 10.244.1.0/24"),
        (("init-node", "--peer", "10.0.10.52=10.244.2.0/24"), "wrong way round", "--peer 10.244.2.0/24=10.0.10.52"),
        (("init-node", "--subnet", "10.244.0.0/20", "--network", "10.244.0.0/24"),
         "did you mean --subnet 10.244.0.0/24 --network 10.244.0.0/20", ""),
        (("init-node", "--network", "mynet"), "a network's name goes with --name", ""),
        (("ipam", "list", "--name", "10.244.0.0/20"), "is a CIDR", "the networks here: mynet"),
        (("ipam", "list", "--network", "10.244.0.0/20"), "--name takes a CNI network's name", ""),
        (("test-connectivity", "--peer", "10.0.10.52=10.244.2.0/24"), "wrong way round",
         "--peer 10.244.2.0/24=10.0.10.52"),
        (("test-connectivity", "--pod", "nobody"), "no pod of this node has this name", ""),
        (("pod", "web", "--to", "nobody"), "not an address, and no pod", ""),
    ],
)  # fmt: skip
def test_swapped_arguments_are_usage_errors_with_the_right_command(
    node: Node, words: tuple[str, ...], message: str, hint: str
) -> None:
    done = cnictl(node, *words, check=False)
    assert (done.status, done.stdout) == (2, "")
    assert message in done.stderr
    assert hint in done.stderr
