"""A link's end where no child can be had to ask for it, where the child never asks, and where it is refused."""

import sys

import pytest

from .plugin_client import Host, Unexpected

pytestmark = pytest.mark.once

_UNLINK = """
import os
from cnictl.core import rtnetlink, unlinking
from cnictl.core.rtnetlink import Netlink

def no_more(): raise BlockingIOError(11, "Resource temporarily unavailable")
def killed(name): os.kill(os.getpid(), 9)
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
    ],
    ids=["none", "no process", "killed", "SIGCHLD ignored"],
)
def test_link_is_gone_whatever_becomes_of_the_child(host: Host, fault: str) -> None:
    host.run("ip", "link", "add", "veth0", "type", "veth", "peer", "name", "veth1")
    said = host.run(sys.executable, "-c", _UNLINK.format(fault=fault, link="veth0"))
    assert said == "True None\n"
    assert "veth" not in host.run("ip", "link")


def test_no_such_link(host: Host) -> None:
    assert host.run(sys.executable, "-c", _UNLINK.format(fault="", link="veth9")) == "False None\n"


def test_what_the_kernel_refuses_is_raised(host: Host) -> None:
    with pytest.raises(Unexpected, match="Operation not supported"):
        host.run(sys.executable, "-c", _UNLINK.format(fault="", link="lo"))
    assert "lo:" in host.run("ip", "link")
