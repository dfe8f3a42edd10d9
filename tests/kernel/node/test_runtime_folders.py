"""A runtime that was started with its own configuration finds the plugin and the conf in the folders that it reads."""

import json
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from cnictl.lab.lab import Lab, Node
from tests.kernel.cluster import shell
from tests.kernel.commands import cnictl, doctor, init, snapshot
from tests.kernel.hints import applies, matches
from tests.waiting import wait_for

pytestmark = [
    pytest.mark.once,
    pytest.mark.skipif(shutil.which("containerd") is None, reason="containerd is not installed"),
]

CONFIG = """\
version = 2
root = "/tmp/elsewhere/root"
state = "/tmp/elsewhere/state"
imports = ["more/*.toml"]
[grpc]
  address = "/tmp/elsewhere/containerd.sock"
[plugins."io.containerd.grpc.v1.cri".cni]
  bin_dir = "/srv/runtime/bin"
"""
IMPORTED = """\
version = 2
[plugins."io.containerd.grpc.v1.cri".cni]
  conf_dir = "/srv/runtime/net.d"
"""
LAUNCHER, CONF = "/srv/runtime/bin/cnictl-bridge", "/srv/runtime/net.d/10-cnictl.conflist"


@contextmanager
def containerd(node: Node, *options: str) -> Iterator[None]:
    """Run a real containerd on a node, with its configuration in an unusual place."""
    node.run(["mkdir", "-p", "/tmp/elsewhere/more", "/srv/runtime/bin"])
    node.run(["sh", "-c", "cat > /tmp/elsewhere/config.toml"], stdin=CONFIG)
    node.run(["sh", "-c", "cat > /tmp/elsewhere/more/cni.toml"], stdin=IMPORTED)
    # the CRI needs the loopback plugin, and preflight checks for it
    node.run(["sh", "-c", "printf '#!/bin/sh\\n' > /srv/runtime/bin/loopback; chmod 755 /srv/runtime/bin/loopback"])
    argv = ["sh", "-c", f"cd /tmp && exec containerd {' '.join(options)}"]
    daemon = node.popen(argv, stdin=subprocess.DEVNULL)
    try:
        wait_for(
            lambda: node.run(["test", "-e", "/tmp/elsewhere/containerd.sock"], check=False).status == 0,
            "containerd's socket",
        )
        yield
    finally:
        daemon.kill()
        daemon.communicate()
        node.run(["sh", "-c", "rm -rf /tmp/elsewhere"])


@pytest.fixture(scope="module")
def node() -> Iterator[Node]:
    """Yield one bare node for this module's tests, which leave it bare."""
    with Lab(nodes=1) as lab:
        yield lab.nodes[0]


def there(node: Node, path: str) -> bool:
    return node.run(["test", "-e", path], check=False).status == 0


@pytest.mark.parametrize(
    "options",
    [("--config", "/tmp/elsewhere/config.toml"), ("-c", "elsewhere/config.toml"), ("--config=elsewhere/config.toml",)],
    ids=" ".join,
)
def test_plugin_and_conf_are_installed_where_a_running_containerd_looks(node: Node, options: tuple[str, ...]) -> None:
    node.run(["mkdir", "-p", "/srv/runtime/bin"])
    with containerd(node, *options):
        init(node)
        assert there(node, LAUNCHER) and there(node, CONF)
        assert doctor(node) == []
        assert cnictl(node, "reset-node", "--yes").status == 0
        assert not there(node, LAUNCHER) and not there(node, CONF)


APPLY = "doctor.runtime._unread: cnictl apply"


@applies(APPLY)
def test_hint_installs_for_a_runtime_started_later(node: Node) -> None:
    init(node)
    with containerd(node, "--config", "/tmp/elsewhere/config.toml"):
        said = cnictl(node, "doctor", "--only", "runtime-folders", "-o", "json", check=False)
        for printed in {finding["hint"]["command"] for finding in json.loads(said.stdout)["items"]}:
            assert matches(APPLY, printed)
            shell(node, printed)
        assert there(node, LAUNCHER) and there(node, CONF)
        assert doctor(node) == []
    cnictl(node, "reset-node", "--yes")


def test_runtime_started_later_is_reported_and_supported(node: Node) -> None:
    init(node)
    assert not there(node, CONF)
    with containerd(node, "--config", "/tmp/elsewhere/config.toml"):
        assert doctor(node) == ["runtime-folders", "runtime-folders"]
        said = cnictl(node, "doctor", "--only", "runtime-folders", check=False)
        assert said.status == 1 and "/srv/runtime/bin" in said.stdout and "/srv/runtime/net.d" in said.stdout
        cnictl(node, "doctor", "--fix", check=False)
        assert there(node, LAUNCHER) and there(node, CONF)
        assert doctor(node) == []
    assert cnictl(node, "apply").status == 0  # at boot, no runtime runs yet
    assert there(node, LAUNCHER) and there(node, CONF)
    cnictl(node, "reset-node", "--yes")
    assert not there(node, LAUNCHER) and not there(node, CONF)


def test_folders_that_the_operator_names_are_kept_in_the_node_file(node: Node) -> None:
    node.run(["rm", "-rf", "/srv/runtime"])
    before = snapshot(node)
    init(node, "--bin-dir", "/srv/named/bin", "--conf-dir", "/srv/named/net.d/")
    init(node)
    for path in ("/srv/named/bin/cnictl-bridge", "/srv/named/net.d/10-cnictl.conflist"):
        assert there(node, path)
    shown = json.loads(cnictl(node, "status", "-o", "json").stdout)
    assert "/srv/named/net.d" in shown["confs"] and "/srv/named/bin" in shown["plugin"]["folders"]
    assert doctor(node) == []
    refused = init(node, "--bin-dir", "named/bin", check=False)
    assert (refused.status, "absolute path" in refused.stderr) == (2, True)
    cnictl(node, "reset-node", "--yes")
    assert snapshot(node) == before
