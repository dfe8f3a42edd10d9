"""Calls whose standard descriptors are closed, are full or have no reader."""

import os
import subprocess
import sys
from collections.abc import Iterator

import pytest

from cnictl.lab.lab import Node
from tests.kernel.plugin.client import PLUGIN_LOG, Host, new_host, plugin_executable

pytestmark = pytest.mark.once

NODE_LOCK = "/run/cnictl/node.lock"


@pytest.fixture(scope="module")
def shared_host() -> Iterator[Host]:
    """A host for all tests here; each failed call leaves nothing."""
    with new_host() as host:
        first = host.pod("first")
        host.add(first)
        yield host


def run(host: Host, verb: str, name: str, redirections: str) -> subprocess.CompletedProcess[bytes]:
    """Call the plugin with its descriptors redirected by a shell."""
    pod = host.pod(name)
    return subprocess.run(
        [*host.enter, "sh", "-c", f'exec "$0" {redirections}', plugin_executable()],
        input=host.stdin({**host.conf, "cniVersion": "1.1.0"}),
        capture_output=True,
        env=host.environment(verb, pod),
        timeout=60,
        check=False,
    )


@pytest.mark.parametrize("redirections", [">&-", ">&- 2>&-", "<&- >&- 2>&-", "<&- >&-"])
def test_add_without_stdout_fails_and_leaves_nothing(shared_host: Host, redirections: str) -> None:
    before = shared_host.traces()
    done = run(shared_host, "ADD", f"closed{len(redirections)}", redirections)
    assert done.returncode == 1
    if "2>" not in redirections:
        assert len(done.stderr.splitlines()) == 1 and b"std" in done.stderr
    assert shared_host.traces() == before
    assert shared_host.path(NODE_LOCK).read_bytes() == b""


def test_add_whose_output_is_full_fails_and_leaves_nothing(shared_host: Host) -> None:
    shared_host.run("sh", "-ec", "mkdir -p /opt/full; mount -t tmpfs -o size=4k full /opt/full")
    shared_host.path("/opt/full/ballast").write_bytes(bytes(4096))
    before = shared_host.traces()
    done = run(shared_host, "ADD", "full", ">/opt/full/out")
    assert done.returncode == 1 and b"No space left on device" in done.stderr
    assert shared_host.traces() == before


def test_add_whose_output_nobody_reads_fails_and_leaves_nothing(shared_host: Host) -> None:
    before = shared_host.traces()
    pod = shared_host.pod("unread")
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run(
        [*shared_host.enter, plugin_executable()],
        input=shared_host.stdin(),
        stdout=write,
        stderr=subprocess.PIPE,
        env=shared_host.environment("ADD", pod),
        timeout=60,
        check=False,
    )
    os.close(write)
    assert done.returncode == 1 and b"Broken pipe" in done.stderr
    assert shared_host.traces() == before


def test_add_without_stderr_returns_its_result(shared_host: Host) -> None:
    done = run(shared_host, "ADD", "mute", "2>&-")
    assert done.returncode == 0 and done.stdout.startswith(b"{")
    shared_host.run("ip", "netns", "delete", "mute")
    assert run(shared_host, "DEL", "mute", ">&- 2>&-").returncode == 0
    assert shared_host.path(NODE_LOCK).read_bytes() == b""


@pytest.mark.parametrize("verb", ["ADD", "DEL", "CHECK", "STATUS", "GC"])
def test_closed_stdin_is_an_error(shared_host: Host, verb: str) -> None:
    before = shared_host.traces()
    done = run(shared_host, verb, f"deaf{verb}", "<&-")
    assert done.returncode == 1 and b'"code": 5' in done.stdout
    assert shared_host.traces() == before


@pytest.mark.parametrize("verb", ["VERSION", "STATUS"])
def test_verb_without_stdout_writes_into_no_file_of_the_host(shared_host: Host, verb: str) -> None:
    done = run(shared_host, verb, f"closed{verb}", ">&- 2>&-")
    assert done.returncode == (1 if verb == "VERSION" else 0)
    assert shared_host.path(NODE_LOCK).read_bytes() == b""
    assert '"cniVersion"' not in shared_host.path(PLUGIN_LOG).read_text()


@pytest.mark.parametrize("redirections", ["<&-", "2>&-", "<&- 2>&-", ">&- 2>&-", "<&- >&- 2>&-"])
def test_command_without_stdout_writes_into_no_file_of_the_host(shared_node: Node, redirections: str) -> None:
    words = f"cd /; exec {sys.executable} -I -m cnictl plugin list -o json {redirections}"
    done = shared_node.run(["sh", "-c", words], check=False)
    assert done.status == 0
    assert (">&-" in redirections.split()) == (done.stdout == "")
    assert "{" not in done.stderr
