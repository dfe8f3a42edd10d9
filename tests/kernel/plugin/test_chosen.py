"""The operator chooses the plugin's version in use: no apply, repair or older cnictl changes it."""

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import cnictl
from cnictl.core.process import Finished
from cnictl.lab.lab import Lab, Node
from tests.kernel.commands import cnictl as run
from tests.kernel.commands import doctor, drifted, init, start_pod
from tests.kernel.runs.test_watch import watching
from tests.waiting import wait_for

pytestmark = pytest.mark.once

LIB = "/usr/local/lib/cnictl"
LAUNCHER = "/opt/cni/bin/cnictl-bridge"
NODE_FILE = "/etc/cnictl/node.toml"
OLD, NEW = cnictl.__version__, "9.0.0"
SOURCE = Path(cnictl.__file__).resolve().parent.parent

MAKE_NEWER = f"""
set -e
mkdir /tmp/newer
cp -r {SOURCE}/cnictl /tmp/newer/cnictl
cp -r {SOURCE}/plugin /tmp/newer/cnictl_plugin
cp -r {SOURCE}/conf /tmp/newer/cnictl_conf
sed -i 's/^__version__ = .*/__version__ = "{NEW}"/' /tmp/newer/cnictl/__init__.py
"""


def newer(node: Node, *words: str, check: bool = True) -> Finished:
    """Run a command of a newer release of cnictl."""
    program = "import sys; sys.path.insert(0, '/tmp/newer'); from cnictl.cli.main import main; main()"
    return node.run([sys.executable, "-c", program, *words], timeout=90, check=check)


@pytest.fixture(scope="module")
def node() -> Iterator[Node]:
    """A node with both releases of the plugin; each test begins with the newer one chosen and in use."""
    with Lab(nodes=1) as lab:
        node = lab.nodes[0]
        init(node)
        node.run(["sh", "-c", MAKE_NEWER])
        yield node


@pytest.fixture(autouse=True)
def newest_in_use(node: Node) -> None:
    newer(node, "plugin", "install")


def in_use(node: Node) -> str:
    return str(json.loads(run(node, "plugin", "list", "-o", "json", check=False).stdout)["current"])


def chosen(node: Node) -> list[str]:
    return [line for line in node.run(["cat", NODE_FILE]).stdout.splitlines() if line.startswith("version")]


def test_chosen_version_survives_apply_and_doctor_accepts_it(node: Node) -> None:
    newer(node, "plugin", "use", OLD)
    assert chosen(node) == [f'version = "{OLD}"']
    for command in ("apply", "init-node"):
        options = ["--subnet", "10.244.0.0/24", "--network", "10.244.0.0/20"] if command == "init-node" else []
        newer(node, command, *options)
        assert in_use(node) == OLD
    assert "plugin" not in doctor(node)
    assert "plugin" not in newer(node, "doctor", "-o", "json", "--skip", "mtu-path", check=False).stdout
    assert newer(node, "plan", "--exit-code").status == 0
    status = json.loads(newer(node, "status", "-o", "json").stdout)
    assert (status["plugin"]["version"], status["plugin"]["chosen"]) == (OLD, OLD)
    assert status["plugin"]["cnictl_is_newer"] is True
    assert f"{NEW}, newer than the plugin" in newer(node, "status").stdout


def test_older_cnictl_keeps_the_version_of_a_newer_one(node: Node) -> None:
    run(node, "apply")
    assert in_use(node) == NEW
    assert drifted(node) == []
    assert "plugin" not in doctor(node, "--fix")
    node.run(["rm", LAUNCHER])
    assert drifted(node) == ["plugin/cnictl-bridge"]
    run(node, "apply")
    assert (in_use(node), drifted(node)) == (NEW, [])


def test_older_cnictl_keeps_the_version_even_if_node_toml_names_none(node: Node) -> None:
    node.run(["sed", "-i", "/^version/d", NODE_FILE])
    run(node, "apply")
    assert (in_use(node), drifted(node), chosen(node)) == (NEW, [], [])


def test_repair_restores_the_chosen_version(node: Node) -> None:
    newer(node, "plugin", "use", OLD)
    with watching(node) as watcher:
        node.run(["sh", "-c", f"rm {LAUNCHER}; nft flush ruleset"])  # the flush triggers a repair
        watcher.until("repaired: ")
        wait_for(lambda: in_use(node) == OLD, "the launcher is back")
        assert drifted(node) == []


def test_choice_is_undone_under_a_live_pod(node: Node) -> None:
    before = node.run(["cat", NODE_FILE]).stdout
    pod = start_pod(node, "pod")
    run(node, "plugin", "use", OLD)
    assert in_use(node) == OLD
    run(node, "undo")
    assert (in_use(node), node.run(["cat", NODE_FILE]).stdout) == (NEW, before)
    assert drifted(node) == []
    assert pod.pings("10.244.0.1")
    node.run(["ip", "netns", "delete", "pod"])
    run(node, "ipam", "gc")


def test_installing_ones_own_release_chooses_it_and_a_dry_run_shows_both_steps(node: Node) -> None:
    shown = json.loads(run(node, "plugin", "install", "--dry-run", "-o", "json").stdout)
    assert [change["resource"] for change in shown["changes"]] == [f"file{NODE_FILE}", "plugin/cnictl-bridge"]
    assert (in_use(node), chosen(node)) == (NEW, [f'version = "{NEW}"'])
    run(node, "plugin", "install")
    assert (in_use(node), chosen(node)) == (OLD, [f'version = "{OLD}"'])
    assert drifted(node) == []


def test_version_in_use_or_chosen_is_not_deleted(node: Node) -> None:
    refused = run(node, "plugin", "uninstall", NEW, check=False)
    assert (refused.status, "is the one in use" in refused.stderr) == (1, True)
    node.run(["sed", "-i", f's/^version = .*/version = "{OLD}"/', NODE_FILE])
    refused = run(node, "plugin", "uninstall", OLD, check=False)
    assert (refused.status, f"names version {OLD}" in refused.stderr) == (1, True)


def test_missing_chosen_version_is_reported_with_a_hint_and_not_replaced(node: Node) -> None:
    node.run(["mv", f"{LIB}/{NEW}", "/tmp/kept"])
    try:
        assert "plugin/cnictl-bridge" in drifted(node)
        refused = run(node, "apply", check=False)
        assert refused.status == 1
        assert f"the chosen version {NEW} of the plugin can't be used" in refused.stderr
        assert "cnictl plugin install installs this cnictl's version" in refused.stderr
        assert f"cnictl plugin use VERSION selects another installed version ({OLD})" in refused.stderr
        node.run(["sh", "-c", "ip address flush dev cni0"])
        run(node, "apply", check=False)  # apply repairs everything else
        assert drifted(node) == ["plugin/cnictl-bridge"]
    finally:
        node.run(["mv", "/tmp/kept", f"{LIB}/{NEW}"])
    assert drifted(node) == []


def test_key_of_a_newer_release_is_kept_and_reported_but_a_typing_error_is_refused(node: Node) -> None:
    note = "import json; path = '/var/lib/cnictl/former.json'; found = json.load(open(path)); "
    note += "found['specs'][-1]['flow_label'] = 7; json.dump(found, open(path, 'w'))"
    refused = run_with(node, "flow_label = 7\n", "plan")
    assert (refused.status, "unknown key 'flow_label'" in refused.stderr) == (2, True)
    node.run([sys.executable, "-c", note])
    kept = run_with(node, "flow_label = 7\n", "route", "add-peer", "10.244.1.0/24", "10.0.10.51")
    assert kept.stderr.count("key 'flow_label' is from a newer cnictl") == 1
    assert "flow_label = 7" in node.run(["cat", NODE_FILE]).stdout
    assert run(node, "plan").status == 0
    mistyped = run_with(node, "flow_lable = 7\n", "plan")
    assert (mistyped.status, "unknown key 'flow_lable'" in mistyped.stderr) == (2, True)
    node.run(["sed", "-i", "/^flow_lab/d", NODE_FILE])


def run_with(node: Node, line: str, *words: str) -> Finished:
    """Run a command with `line` at the beginning of the node file."""
    node.run(["sh", "-c", f"sed -i '/^flow_lab/d' {NODE_FILE}; printf '{line}' | cat - {NODE_FILE} > /tmp/n; "
              f"cat /tmp/n > {NODE_FILE}"])  # fmt: skip
    return run(node, *words, check=False)
