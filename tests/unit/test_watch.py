"""How `cnictl watch` reads the kernel's messages, and when it gives up a repair."""

import struct

from cnictl.core.netlink.messages import attr, text_attr
from cnictl.node.host.route_lookup import PROTOCOL
from cnictl.watch import events
from cnictl.watch.repairs import CALM, FIGHT, Repairs

LINK = struct.pack("=BxHiII", 0, 1, 3, 0, 0)


def test_links_of_pods_are_ignored() -> None:
    cni0, pod = LINK + text_attr(3, "cni0"), LINK + text_attr(3, "veth12345678")
    assert events.read(17, cni0, 42, {"cni0"}) == events.Event("link cni0", 42, "")
    assert events.read(17, pod, 42, {"cni0"}) is None


def test_our_removed_routes_and_new_routes_that_may_hide_them_count() -> None:
    ours, theirs = (bytes((2, 24, 0, 0, 254, protocol, 0, 1)) + bytes(4) for protocol in (PROTOCOL, 3))
    assert events.read(25, ours, 0, set()) == events.Event("route", 0, "")
    assert events.read(25, theirs, 0, set()) is None
    assert events.read(24, theirs, 0, set()) == events.Event("route", 0, "")


def test_change_of_the_ruleset_names_its_process() -> None:
    body = bytes(4) + attr(1, struct.pack("!I", 9)) + attr(2, struct.pack("!I", 77)) + text_attr(3, "nft")
    assert events.read(10 << 8 | 15, body, 0, set()) == events.Event("rules", 77, "nft")


def test_repairs_stop_in_a_fight_and_resume_when_it_is_calm() -> None:
    repairs, now = Repairs(), 1000.0
    assert repairs.due("route/x", now) <= 0
    given_up = False
    for number in range(FIGHT):
        wait = repairs.due("route/x", now)
        assert (wait > 0) == (number >= 2)
        now += max(0.0, wait)
        given_up = repairs.note("route/x", now, "nft (process 7)")
    assert given_up
    assert repairs.due("route/x", now) == float("inf")
    assert repairs.as_data()["given_up"] == {"route/x": "nft (process 7)"}
    repairs.seen(set(), now)
    repairs.seen({"route/x"}, now + CALM - 1)
    repairs.seen(set(), now + CALM)
    repairs.seen(set(), now + 2 * CALM - 1)
    assert repairs.due("route/x", now) == float("inf")
    repairs.seen(set(), now + 2 * CALM)
    assert repairs.due("route/x", now + 2 * CALM) <= 0
    assert repairs.as_data()["repairs"] == {"route/x": FIGHT}


def test_reload_resumes_repairs() -> None:
    repairs = Repairs()
    for _ in range(FIGHT):
        repairs.note("bridge/cni0", 1.0, "")
    repairs.forgive()
    assert repairs.due("bridge/cni0", 1.0) <= 0
