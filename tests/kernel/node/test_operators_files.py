"""An operator's links into a repository, masked units, file modes and mounts are used unchanged, or refused."""

import json
from collections.abc import Iterator

import pytest

from cnictl.lab.lab import Lab, Node
from tests.kernel.commands import CONF, cnictl, drifted, init, snapshot

pytestmark = pytest.mark.once

NODE_FILE = "/etc/cnictl/node.toml"
REPOSITORY = "/srv/repository"
SYSCTL = "/etc/sysctl.d/99-cnictl.conf"
UNIT = "/etc/systemd/system/cnictl.service"


@pytest.fixture(scope="module")
def bare() -> Iterator[Node]:
    with Lab(nodes=1) as lab:
        yield lab.nodes[0]


@pytest.fixture
def node(bare: Node) -> Iterator[Node]:
    """Yield a bare node, and make it bare again after the test."""
    shell(bare, f"mkdir -p {REPOSITORY} /etc/cnictl /etc/sysctl.d")
    yield bare
    cnictl(bare, "reset-node", "--yes", check=False)
    bare.run(["umount", f"{REPOSITORY}/ro"], check=False)
    shell(
        bare,
        f"rm -rf {REPOSITORY} /etc/cnictl /etc/sysctl.d /etc/systemd /run/systemd /var/lib/cnictl /etc/cni/net.d/*",
    )


def shell(node: Node, script: str) -> str:
    return node.run(["sh", "-ec", script]).stdout


def text(node: Node, path: str) -> str:
    return node.run(["cat", path]).stdout


def link(node: Node, path: str) -> str:
    return node.run(["readlink", path], check=False).stdout.strip()


def test_node_file_in_a_repository_is_written_and_reverted_there_and_survives_a_reset(node: Node) -> None:
    init(node)
    target = "../../srv/repository/node.toml"
    shell(node, f"mv {NODE_FILE} {REPOSITORY}; ln -s {target} {NODE_FILE}; chmod 600 {REPOSITORY}/node.toml")
    before = text(node, NODE_FILE)
    cnictl(node, "route", "add-peer", "10.244.1.0/24", "10.0.10.51")
    assert link(node, NODE_FILE) == target
    assert "10.0.10.51" in text(node, f"{REPOSITORY}/node.toml")
    assert shell(node, f"stat -c '%a %u' {REPOSITORY}/node.toml; ls -A {REPOSITORY}") == "600 0\nnode.toml\n"
    cnictl(node, "undo")
    assert (link(node, NODE_FILE), text(node, NODE_FILE)) == (target, before)
    preview = cnictl(node, "reset-node", "--dry-run")
    done = cnictl(node, "reset-node", "--yes")
    for said in (preview.stderr, done.stderr):
        assert f"{NODE_FILE} leads to {REPOSITORY}/node.toml, a file that cnictl did not make" in said
    assert (link(node, NODE_FILE), text(node, NODE_FILE)) == (target, before)
    assert "cni0" not in shell(node, "ip -br link")
    cnictl(node, "apply")
    assert drifted(node) == []


def test_dangling_link_is_written_through_and_a_reset_removes_only_the_file(node: Node) -> None:
    shell(node, f"ln -s {REPOSITORY}/node.toml {NODE_FILE}; ln -s {REPOSITORY}/sysctl {SYSCTL}")
    shell(node, f"ln -s {REPOSITORY}/conf {CONF}")
    before = snapshot(node)
    init(node)
    assert shell(node, f"ls {REPOSITORY}") == "conf\nnode.toml\nsysctl\n"
    assert drifted(node) == []
    cnictl(node, "reset-node", "--yes")
    now = snapshot(node)
    assert {key for key in now if now[key] != before[key]} == set()
    assert shell(node, f"ls {REPOSITORY}; readlink {NODE_FILE} {SYSCTL} {CONF}").split() == [
        f"{REPOSITORY}/node.toml", f"{REPOSITORY}/sysctl", f"{REPOSITORY}/conf"
    ]  # fmt: skip
    init(node)
    cnictl(node, "undo")
    assert snapshot(node)["contents"] == before["contents"]
    assert link(node, NODE_FILE) == f"{REPOSITORY}/node.toml"


def test_folders_that_are_links_are_used_and_stay(node: Node) -> None:
    shell(node, f"rm -r /etc/cnictl; mkdir {REPOSITORY}/etc {REPOSITORY}/net.d; ln -s {REPOSITORY}/etc /etc/cnictl")
    shell(node, f"rmdir /etc/cni/net.d; ln -s {REPOSITORY}/net.d /etc/cni/net.d")
    try:
        init(node)
        assert shell(node, f"ls {REPOSITORY}/*").split()[1::2] == ["node.toml", "10-cnictl.conflist"]
        assert drifted(node) == []
        cnictl(node, "reset-node", "--yes")
        assert (link(node, "/etc/cnictl"), link(node, "/etc/cni/net.d")) == (f"{REPOSITORY}/etc", f"{REPOSITORY}/net.d")
    finally:
        shell(node, "rm -f /etc/cni/net.d; mkdir -p /etc/cni/net.d")


@pytest.mark.parametrize(
    ("prepare", "said"),
    [
        (f"ln -s {REPOSITORY}/missing/node.toml {NODE_FILE}", f"there is no folder {REPOSITORY}/missing"),
        (f"ln -s node.toml {NODE_FILE}", "node.toml"),
        (f"ln -s /dev/null {NODE_FILE}", "is a device, a pipe or a socket, not a file"),
        (f"rmdir /etc/cnictl; ln -s {REPOSITORY}/missing /etc/cnictl", "which is not a folder"),
        (
            f"mkdir {REPOSITORY}/ro; mount -t tmpfs -o ro none {REPOSITORY}/ro; ln -s {REPOSITORY}/ro/n {NODE_FILE}",
            "node.toml: is not writable",
        ),
    ],
    ids=["no folder", "circle", "device", "folder nowhere", "read-only"],
)
def test_link_that_cannot_be_written_through_is_one_line_and_changes_nothing(
    node: Node, prepare: str, said: str
) -> None:
    shell(node, prepare)
    before = snapshot(node)
    refused = init(node, check=False)
    assert refused.status in (1, 2) and len(refused.stderr.splitlines()) < 5
    assert said in refused.stderr
    now = snapshot(node)
    assert {key for key in now if now[key] != before[key] and key != "tree"} == set()
    notes = ("/var/lib/cnictl", "/run/cnictl")
    assert {line for line in set(now["tree"]) ^ set(before["tree"]) if not line.startswith(notes)} == set()


def test_masked_unit_and_drop_in_stay_masked(node: Node) -> None:
    shell(node, f"mkdir -p /run/systemd/system /etc/systemd/system; ln -s /dev/null {UNIT}; ln -s /dev/null {SYSCTL}")
    done = init(node)
    assert f"{UNIT}: is masked, so the node does not come back after a boot" in done.stderr
    assert (link(node, UNIT), link(node, SYSCTL)) == ("/dev/null", "/dev/null")
    assert drifted(node) == []
    assert shell(node, "ls /etc/systemd/system") == "cnictl.service\n"
    cnictl(node, "reset-node", "--yes")
    assert (link(node, UNIT), link(node, SYSCTL)) == ("/dev/null", "/dev/null")


def test_mode_attributes_other_names_and_mounts_of_the_node_file_stay(node: Node) -> None:
    init(node)
    shell(node, f"chmod 640 {NODE_FILE}; ln {NODE_FILE} {REPOSITORY}/other")
    cnictl(node, "route", "add-peer", "10.244.1.0/24", "10.0.10.51")
    assert text(node, f"{REPOSITORY}/other") == text(node, NODE_FILE)
    shell(
        node,
        f"rm {REPOSITORY}/other; cp {NODE_FILE} {REPOSITORY}/mounted; mount --bind {REPOSITORY}/mounted {NODE_FILE}",
    )
    try:
        cnictl(node, "route", "add-peer", "10.244.2.0/24", "10.0.10.52")
        assert "10.0.10.52" in text(node, f"{REPOSITORY}/mounted")
        assert drifted(node) == []
    finally:
        shell(node, f"umount {NODE_FILE}")
    cnictl(node, "apply")
    assert shell(node, f"stat -c %a {NODE_FILE}") == "640\n"


def test_conf_behind_a_link_is_written_there(node: Node) -> None:
    init(node)
    shell(node, f"mv {CONF} {REPOSITORY}/conf; ln -s {REPOSITORY}/conf {CONF}")
    cnictl(node, "nat", "disable")
    assert link(node, CONF) == f"{REPOSITORY}/conf"
    assert json.loads(text(node, f"{REPOSITORY}/conf"))["plugins"][0]["ipMasq"] is False
    assert shell(node, "ls -A /etc/cni/net.d") == "10-cnictl.conflist\n"
