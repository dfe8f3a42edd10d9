"""Test cnictl with Debian's ufw and FORWARD set to DROP: ufw enabled before and after cnictl, and reloaded."""

import json
from collections.abc import Iterator

import pytest

from cnictl.lab.lab import Lab, Node
from tests.kernel.commands import Pod, cnictl, drifted, init, start_pod
from tests.kernel.hints import applies

from .packaged import connects, install, serve

pytestmark = pytest.mark.once

_EXTERNAL = "192.0.2.10"
_SET_UP = """
cp /usr/share/ufw/ufw.conf /etc/ufw/
for name in before after user; do cp -L /usr/share/ufw/$name.rules /usr/share/ufw/${name}6.rules /etc/ufw/; done
for name in before after; do cp /usr/share/ufw/$name.init /etc/ufw/; done
"""
"""Does what the package's maintainer script does."""


@pytest.fixture
def node() -> Iterator[Node]:
    """A node with ufw installed but not enabled."""
    with Lab(nodes=2) as lab:
        first = lab.nodes[0]
        install(first, "ufw")
        first.run(["sh", "-ec", _SET_UP])
        serve(lab.outside.popen)
        yield first


def reaches(pod: Pod) -> bool:
    """Return whether the pod reaches its own host and a server outside."""
    return pod.pings("10.244.0.1") and connects(pod.run, _EXTERNAL)


def ufw(node: Node, *words: str) -> str:
    return node.run(["ufw", *words], timeout=60).stdout


def all_of_ufw(node: Node) -> tuple[str, ...]:
    """Return ufw's status, the iptables rules, and the names of ufw's files."""
    return ufw(node, "status", "verbose"), *(
        node.run(argv).stdout for argv in (["iptables", "-S"], ["ls", "-R", "/etc/ufw"])
    )


def test_ufw_enabled_after_cnictl_and_reloaded(node: Node) -> None:
    init(node)
    pod = start_pod(node, "pod")
    assert reaches(pod)
    ufw(node, "--force", "enable")
    assert "-P FORWARD DROP" in node.run(["iptables", "-S", "FORWARD"]).stdout
    assert reaches(pod)
    ufw(node, "reload")
    assert reaches(pod)
    ufw(node, "disable")
    ufw(node, "--force", "enable")
    assert reaches(pod)
    assert drifted(node) == []
    assert_its_own_command_lets_pods_in(node)


@applies("node.host.own_host._allow: ufw allow {}")
def assert_its_own_command_lets_pods_in(node: Node) -> None:
    """Doctor must report that ufw rejects packets from pods to their node, and name the ufw command that allows them.

    cnictl does not change this by itself, because a firewall that rejects these packets may do so on purpose.
    """
    [finding] = json.loads(cnictl(node, "doctor", "-o", "json", check=False).stdout)["items"]
    assert (finding["id"], finding["subject"]) == ("own-host", "iptables INPUT")
    node.run(["sh", "-c", finding["hint"]["command"]])
    done = cnictl(node, "doctor", check=False)
    assert done.stdout.startswith("healthy")


def test_rules_of_a_ufw_enabled_before_cnictl_are_restored(node: Node) -> None:
    ufw(node, "--force", "enable")
    before = (
        ufw(node, "status", "verbose"),
        node.run(["iptables", "-S"]).stdout,
        node.run(["ls", "-R", "/etc/ufw"]).stdout,
    )
    init(node)
    pod = start_pod(node, "pod")
    assert reaches(pod)
    ufw(node, "reload")
    assert reaches(pod)
    node.run(["iptables", "-D", "FORWARD", "-m", "comment", "--comment", "cnictl:mynet", "-j", "CNICTL-FORWARD"])
    assert not reaches(pod)
    assert "forward-drop" in cnictl(node, "doctor", check=False).stdout
    assert "fixed: forward-drop" in cnictl(node, "doctor", "--fix", check=False).stderr
    assert reaches(pod)
    node.run(["ip", "netns", "delete", "pod"])
    cnictl(node, "reset-node", "--yes", "--force")
    after = (
        ufw(node, "status", "verbose"),
        node.run(["iptables", "-S"]).stdout,
        node.run(["ls", "-R", "/etc/ufw"]).stdout,
    )
    assert after == before
