"""Doctor finds faults that only IPv6 has on a dual-stack node, and has no findings on healthy nodes with IPv6."""

from collections.abc import Iterator

import pytest

from cnictl.lab.lab import Lab
from tests.kernel.commands import cnictl, start_pod
from tests.kernel.node.test_dual_stack import set_up
from tests.waiting import wait_for

from .harness import Case, World, new_world, run

pytestmark = pytest.mark.once

GATEWAY = "fd00:244::1"
_ADVERTISE = """
import socket, struct, sys, time
link, lifetime = sys.argv[1], 6
sending = socket.socket(socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_ICMPV6)
sending.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_HOPS, 255)
sending.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_IF, socket.if_nametoindex(link))
while True:
    sending.sendto(struct.pack("!BBHBBHII", 134, 0, 0, 64, 0, lifetime, 0, 0), ("ff02::1", 0))
    print("sent", flush=True)
    time.sleep(0.5)
"""
"""Router advertisements (RFC 4861, section 4.2) of a default route that lasts six seconds."""


@pytest.fixture(scope="module")
def both() -> Iterator[World]:
    with new_world(families=2) as fresh:
        yield fresh


def test_bridge_without_ipv6(both: World) -> None:
    case = Case(
        "bridge-ipv6", "sysctl -w net.ipv6.conf.cni0.disable_ipv6=1", "a pod can't reach its own host by IPv6",
        lambda world: not world.reaches(GATEWAY),
    )  # fmt: skip
    run(both, case)


def test_ignored_router_advertisements_are_found(both: World) -> None:
    """The default route that the other node advertises expires, and is not renewed."""
    outside6 = both.outside.address6
    accept_ra = "net.ipv6.conf.{dev}.accept_ra"
    both.sh(f"ip -6 route del default; sysctl -qw {accept_ra}=2 {accept_ra}_defrtr=1")
    advertising = both.there.popen(["/usr/bin/python3", "-c", _ADVERTISE, both.names["dev"]])
    try:
        wait_for(lambda: "proto ra" in both.sh("ip -6 route show default"), "the router's route is there")
        both.sh(f"sysctl -qw {accept_ra}=1; cnictl apply")  # as on a host that had this value before cnictl
        wait_for(lambda: both.reaches(outside6), "the route leads outside")
        symptom = "a pod can't reach the outside by IPv6 once the route has run out"
        fault = f"sysctl -w {accept_ra}=1"
        run(both, Case("router-advertisements", fault, symptom, lambda world: not world.reaches(outside6)))
    finally:
        advertising.kill()
        advertising.communicate()


@pytest.mark.parametrize("families", [True, False], ids=["both families", "IPv6 alone"])
def test_healthy_ipv6_node(families: bool) -> None:
    with Lab(nodes=2, dual_stack=True) as lab:
        set_up(lab, both=families)
        start_pod(lab.nodes[0], "pod")
        done = cnictl(lab.nodes[0], "doctor")
        assert (done.stdout.count("\n"), done.stderr) == (1, "")
