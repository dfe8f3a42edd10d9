"""Delete a link if no child process can be started, if the child never sends the request, or if it is refused."""

import json
import os
import subprocess
import sys

import pytest

from tests.kernel.plugin.client import Host, Unexpected, plugin_executable

pytestmark = pytest.mark.once

_UNLINK = """
import os
from cnictl.core import unlinking
from cnictl.core.netlink import rtnetlink
from cnictl.core.netlink.rtnetlink import Netlink

def no_more(): raise BlockingIOError(11, "Resource temporarily unavailable")
def killed(name): os.kill(os.getpid(), 9)
unlinking.collects = lambda: True
{fault}
with Netlink() as netlink:
    print(unlinking.unlink(netlink, "{link}"), rtnetlink.get_link(netlink, "{link}"))
"""


@pytest.mark.parametrize(
    "fault",
    [
        "",
        "unlinking.fork = no_more",
        "unlinking._ask_and_exit = killed",
        "import signal; signal.signal(signal.SIGCHLD, signal.SIG_IGN)",
        "unlinking.collects = lambda: False",
    ],
    ids=["none", "no process", "killed", "SIGCHLD ignored", "nobody collects"],
)
def test_link_is_deleted_even_if_the_child_fails(host: Host, fault: str) -> None:
    host.run("ip", "link", "add", "veth0", "type", "veth", "peer", "name", "veth1")
    said = host.run(sys.executable, "-c", _UNLINK.format(fault=fault, link="veth0"))
    assert said == "True None\n"
    assert "veth" not in host.run("ip", "link")


def test_no_such_link(host: Host) -> None:
    assert host.run(sys.executable, "-c", _UNLINK.format(fault="", link="veth9")) == "False None\n"


def test_refusal_of_the_kernel_is_raised(host: Host) -> None:
    with pytest.raises(Unexpected, match="Operation not supported"):
        host.run(sys.executable, "-c", _UNLINK.format(fault="", link="lo"))
    assert "lo:" in host.run("ip", "link")


_RUNTIME = """
import ctypes, json, os, subprocess, sys
order = json.load(sys.stdin)
ctypes.CDLL(None).prctl(36, 1, 0, 0, 0)  # PR_SET_CHILD_SUBREAPER: orphans become children of this process
for verb in order["verbs"]:
    environment = {**order["environment"], "CNI_COMMAND": verb}
    subprocess.run([order["plugin"]], input=json.dumps(order["conf"]).encode(), env=environment, check=True,
                   stdout=subprocess.DEVNULL)
    print(open(f"/proc/self/task/{os.getpid()}/children").read().split())
"""


def test_del_leaves_no_child_to_a_parent_that_does_not_wait(host: Host) -> None:
    pod = host.pod()
    order = {
        "verbs": ["ADD", "DEL"] * 3,
        "environment": host.environment("ADD", pod),
        "conf": host.conf,
        "plugin": plugin_executable(),
    }
    said = host.run(sys.executable, "-c", _RUNTIME, stdin=json.dumps(order))
    assert said.splitlines() == ["[]"] * 6


_TREE = """
import os, signal, sys
from cnictl.core import reaper
first, how, middle = sys.argv[1:]
open("/proc/self/comm", "w").write(first)
if how == "blocks":
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGCHLD])
elif how == "catches":
    signal.signal(signal.SIGCHLD, lambda *_: None)
child = os.fork()
if child == 0:
    open("/proc/self/comm", "w").write(middle)
    if os.fork() == 0:
        print(reaper.collects(), flush=True)
        os._exit(0)
    os.wait()
    os._exit(0)
os.waitpid(child, 0)
"""


@pytest.mark.parametrize(
    ("first", "how", "middle", "known"),
    [
        ("systemd", "blocks", "containerd", True),
        ("tini", "catches", "podman", True),
        ("systemd", "nothing", "containerd", False),
        ("sleep", "catches", "containerd", False),
        ("systemd", "blocks", "python3", False),
        ("systemd", "blocks", "a) S 1 (x", False),
    ],
)
def test_parents_that_are_known_to_wait_for_children(first: str, how: str, middle: str, known: bool) -> None:
    flags = ["--pid", "--fork", "--mount-proc", *(["--user", "--map-root-user"] if os.geteuid() else [])]
    command = ["unshare", *flags, sys.executable, "-c", _TREE, first, how, middle]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=True)
    assert done.stdout == f"{known}\n"
