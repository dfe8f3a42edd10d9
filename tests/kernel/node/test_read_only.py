"""On hosts with unwritable folders, essentials are checked first, and other files are left out with a note."""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from cnictl.lab.lab import Lab, Node
from tests.kernel.commands import cnictl, doctor, drifted, init, snapshot, start_pod


@pytest.fixture(scope="module")
def node() -> Iterator[Node]:
    """Yield one bare node that seems to run systemd. Each test leaves it bare."""
    with Lab(nodes=1) as lab:
        lab.nodes[0].run(["mkdir", "-p", "/run/systemd/system", "/etc/systemd/system", "/etc/sysctl.d", "/etc/cni"])
        yield lab.nodes[0]


@contextmanager
def read_only(node: Node, *folders: str, options: str = "ro") -> Iterator[None]:
    """Mount folders with other options while the context lasts, as on an image-based host."""
    done: list[str] = []
    try:
        for folder in folders:
            node.run(["mkdir", "-p", folder])
            node.run(["mount", "--bind", folder, folder])
            done.append(folder)
            node.run(["mount", "-o", f"remount,bind,{options}", folder])
        yield
    finally:
        for folder in reversed(done):
            node.run(["umount", "-l", folder])


LEFT_OUT = ("/etc/systemd/system/cnictl.service", "/etc/sysctl.d/99-cnictl.conf")


def test_files_for_the_next_boot_are_left_out_with_a_note(node: Node) -> None:
    with read_only(node, "/etc/systemd/system", "/etc/sysctl.d"):
        done = init(node)
        for path in LEFT_OUT:
            assert done.stderr.count(f"warning [not-kept] {path}: is not writable here") == 1
        assert (drifted(node), doctor(node)) == ([], [])
        start_pod(node, "web")
        status, healthy = cnictl(node, "status"), cnictl(node, "doctor")
        assert healthy.stdout.startswith("healthy")
        for said in (status.stdout, healthy.stdout):
            assert [said.count(path) for path in LEFT_OUT] == [1, 1]
        assert cnictl(node, "apply", "--dry-run", "--exit-code").status == 0
        cnictl(node, "reset-node", "--yes", "--force")
        node.run(["ip", "netns", "delete", "web"])


def test_skipped_files_are_written_once_they_can_be(node: Node) -> None:
    with read_only(node, "/etc/systemd/system", "/etc/sysctl.d"):
        init(node)
    assert {"boot/cnictl.service", "file/etc/sysctl.d/99-cnictl.conf"} <= set(drifted(node))
    cnictl(node, "apply")
    assert drifted(node) == []
    cnictl(node, "reset-node", "--yes")


@pytest.mark.parametrize(
    ("folders", "options", "check"),
    [
        (("/etc/cni",), "ro", "conf-dir"),
        (("/var/lib",), "ro", "state"),
        (("/etc",), "ro", "state"),
        (("/opt", "/usr/lib"), "ro", "bin-dir"),
        (("/opt",), "noexec", "bin-dir"),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, tuple) else value,
)
def test_unwritable_required_folder_is_an_error_before_any_change(
    node: Node, folders: tuple[str, ...], options: str, check: str
) -> None:
    before = snapshot(node)
    with read_only(node, *folders, options=options):
        done = init(node, check=False)
        assert (done.status, f"error [{check}]" in done.stderr) == (1, True), done.stderr
        assert "nothing was changed" in done.stderr
    after = snapshot(node)
    touched = set(after.pop("tree")) ^ set(before.pop("tree"))
    # mount's records, and locks
    assert {path for path in touched if not path.startswith(("/run/mount", "/run/cnictl"))} == set()
    assert after == before


def test_plugin_is_installed_in_the_chosen_folder_if_usr_local_is_read_only(node: Node) -> None:
    with read_only(node, "/usr/local/lib"):
        done = init(node, check=False)
        assert (done.status, "plugin install --lib-dir /opt/cnictl" in done.stderr) == (1, True)
        cnictl(node, "plugin", "install", "--lib-dir", "/opt/cnictl")
        init(node)
        assert drifted(node) == []
        start_pod(node, "web")
        cnictl(node, "reset-node", "--yes", "--force")
        node.run(["ip", "netns", "delete", "web"])
