"""The units start root's own copy of cnictl.

The copy is complete and reads no other code. Runs upgrade and remove it.
"""

import json
import os
import sys
from collections.abc import Iterator
from typing import Any

import pytest

import cnictl
from cnictl.lab.lab import Lab, Node
from tests.kernel.commands import cnictl as run
from tests.kernel.commands import doctor, drifted, init, snapshot
from tests.kernel.doctor.harness import note
from tests.kernel.plugin.test_chosen import MAKE_NEWER, NEW, newer

pytestmark = pytest.mark.once

HOME = "/usr/local/lib/cnictl/cli"
COMMAND = f"{HOME}/current/cnictl"
UNITS = "/etc/systemd/system"


@pytest.fixture(scope="module")
def before() -> dict[str, Any]:
    """Return a dict that the `node` fixture fills with the host's state before anything else."""
    return {}


@pytest.fixture(scope="module")
def node(before: dict[str, Any]) -> Iterator[Node]:
    """Yield a node that seems to run systemd."""
    with Lab(nodes=1) as lab:
        fresh = lab.nodes[0]
        fresh.run(["mkdir", "-p", "/run/systemd/system"])
        before |= snapshot(fresh)
        init(fresh)
        yield fresh


def in_use(node: Node) -> str:
    return node.run(["readlink", f"{HOME}/current"]).stdout.strip()


def test_units_start_only_the_copy(node: Node) -> None:
    unit = node.run(["cat", f"{UNITS}/cnictl.service"]).stdout + run(node, "watch", "--unit").stdout
    started = [line.partition("=")[2].lstrip("-").split()[0] for line in unit.splitlines() if line[:9] == "ExecStart"]
    assert started == [COMMAND] * 3
    others = "! -user 0 -o -perm /022"
    assert node.run(["find", "-L", HOME, "-not", "-type", "l", "(", *others.split(), ")"]).stdout == ""
    assert drifted(node) == []


def test_copy_applies_collects_and_confirms_without_the_original_installation(node: Node) -> None:
    source = os.path.dirname(os.path.dirname(cnictl.__file__))
    outside = [folder for folder in dict.fromkeys([source, sys.prefix]) if not folder.startswith("/usr")]
    hide = "".join(f"mount -t tmpfs none {folder}; " for folder in outside[:1])
    for words in ("apply", "ipam gc --all", "confirm --status -o json", "plan --exit-code", "status", "doctor --help"):
        node.run(["ip", "address", "flush", "dev", "cni0"])
        if words != "apply":
            run(node, "apply")
        environment = "env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin"
        done = node.run(["unshare", "-m", "sh", "-ec", f"{hide} exec {environment} {COMMAND} {words}"], check=False)
        assert done.status == (1 if "confirm" in words else 0), (words, done.stderr)
    assert drifted(node) == []


def test_code_outside_the_copy_is_not_read(node: Node) -> None:
    packages = f"/usr/local/lib/python{sys.version_info[0]}.{sys.version_info[1]}/dist-packages"
    files = " ".join(f"/tmp/trap/{name}.py" for name in ("typer", "sitecustomize", "usercustomize", "json"))
    trap = "import os; os.mknod('/tmp/trapped')"
    node.run(["sh", "-c", f'mkdir /tmp/trap; echo "$0" | tee {files} > /tmp/trap/trap.pth', trap])
    start = f"mount --bind /tmp/trap {packages}; cd /tmp/trap; PYTHONPATH=/tmp/trap HOME=/tmp/trap exec {COMMAND} plan"
    node.run(["unshare", "-m", "sh", "-ec", start])
    assert "trapped" not in node.run(["ls", "/tmp"]).stdout.split()
    node.run(["rm", "-r", "/tmp/trap"])


@pytest.mark.parametrize(
    "damage",
    ["rm {}/site/cnictl/core/cidr.py", "truncate -s 5 {}/site/rich/text.py", "chmod 666 {}/site/typer/main.py"],
)
def test_copy_that_is_damaged_or_writable_by_others_is_reported_and_recreated(node: Node, damage: str) -> None:
    node.run(["sh", "-c", damage.format(f"{HOME}/current")])
    assert drifted(node) == ["program/cnictl"]
    assert doctor(node) == ["boot-unit"]
    run(node, "apply")
    node.run([COMMAND, "plan", "--exit-code"])


def test_damaged_copy_that_still_runs_says_so_and_repairs_everything_else(node: Node) -> None:
    node.run(["sh", "-c", f"echo >> {HOME}/current/site/netaddr/strategy/eui48.py; ip address flush dev cni0"])
    failed = node.run([COMMAND, "apply"], check=False)
    assert failed.status == 1
    assert "is damaged, and a damaged copy can't replace itself" in failed.stderr
    assert drifted(node) == ["program/cnictl"]
    run(node, "apply")
    assert drifted(node) == []


def test_install_of_another_release_installs_its_copy_and_undo_restores_the_former(node: Node) -> None:
    node.run(["sh", "-c", MAKE_NEWER])
    newer(node, "apply")
    assert in_use(node) == cnictl.__version__
    newer(node, "plugin", "install")
    assert in_use(node) == NEW
    run(node, "apply")
    assert (in_use(node), drifted(node)) == (NEW, [])
    listed = json.loads(node.run([COMMAND, "plugin", "list", "-o", "json"]).stdout)
    assert listed["cnictl"] == NEW
    run(node, "undo")
    assert (in_use(node), drifted(node)) == (cnictl.__version__, [])
    node.run([COMMAND, "plan", "--exit-code"])


def test_watch_unit_that_starts_a_users_cnictl_is_reported(node: Node) -> None:
    unit = f"{UNITS}/cnictl-watch.service"
    fault = f"cnictl watch --unit | sed 's#^ExecStart=.* #ExecStart=/home/user/venv/bin/cnictl #' > {unit}"
    node.run(
        ["sh", "-ec", f"mkdir -p /home/user/venv/bin; chmod 777 /home/user; touch /home/user/venv/bin/cnictl; {fault}"]
    )
    assert doctor(node) == ["unit-code"]
    node.run(["sh", "-c", f"cnictl watch --unit > {unit}"])
    assert doctor(node) == []
    node.run(["rm", "-r", unit, "/home/user"])
    note("unit-code", fault, "another user's code runs as root at the next boot", "cnictl watch --unit")


def test_copy_that_cannot_start_is_never_put_into_use(node: Node) -> None:
    node.run(["sh", "-c", "echo 'raise OSError(1)' >> /tmp/newer/cnictl/watch/keeper.py"])
    failed = newer(node, "plugin", "install", check=False)
    assert failed.status == 1
    assert in_use(node) == cnictl.__version__
    assert drifted(node) == []
    assert ".cnictl-building" not in node.run(["ls", "-a", HOME]).stdout


def test_reset_removes_the_copy(node: Node, before: dict[str, Any]) -> None:
    run(node, "reset-node", "--yes")
    node.run(["rm", "-rf", "/tmp/newer"])
    now = snapshot(node)
    left = set(now.pop("tree")) ^ set(before.pop("tree"))
    assert {line for line in left if not line.startswith("/run/mount ")} == set()  # made by mount(8)
    assert now == before
