"""Netlink messages, dumps and answers that are too long for one datagram or one read, on a real kernel."""

import json
import sys

import pytest

from tests.kernel.plugin.client import Host

pytestmark = pytest.mark.once

_HEAD = """
import errno, json
from cnictl.core.netlink import messages as netlink, nftables, rtnetlink
from cnictl.core.netlink.messages import Netlink, NetlinkError
def address(number): return bytes((10, 1, number >> 8, number & 255))
def giving(numbers): return [rtnetlink.add_address(1, address(one), 32) for one in numbers]
def held(asked): return {packed for _, packed, _ in rtnetlink.all_addresses(asked, netlink.AF_INET)}
"""


def ask(host: Host, script: str) -> object:
    """Run a script on the host and return what it prints, parsed as JSON."""
    return json.loads(host.run(sys.executable, "-c", _HEAD + script))


def test_refusals_keep_their_place_in_a_long_batch_and_the_rest_is_carried_out(host: Host) -> None:
    said = ask(
        host,
        """
with Netlink() as asked:
    asked.call(*giving((3, 64, 500, 1999)))
    refused = asked.refusals(*giving(range(2000)))
    there = held(asked)
    print(json.dumps([[one.position for one in refused], sorted({one.errno for one in refused}),
                      sum(address(one) in there for one in range(2000))]))
""",
    )
    assert said == [[3, 64, 500, 1999], [17], 2000]


def test_lost_answers_count_as_refusals_and_nobody_waits_for_them(host: Host) -> None:
    said = ask(
        host,
        """
netlink.Netlink._make_room = lambda *_, **__: None
with Netlink() as asked:
    asked._socket.setsockopt(1, 8, 1)  # the smallest receive buffer that the kernel allows
    refused = asked.refusals(*giving(range(200)))
    print(json.dumps([sorted({one.errno for one in refused}), len(held(asked) - {b"\\x7f\\0\\0\\1"})]))
""",
    )
    assert said == [[105], 200]


def test_a_long_transaction_is_carried_out_or_refused_as_a_whole(host: Host) -> None:
    lines = ["add table inet much", "add chain inet much one"]
    lines += [f'add rule inet much one tcp dport {port} accept comment "mine"' for port in range(1, 4001)]
    host.run("nft", "-f", "-", stdin="\n".join(lines) + "\n")
    said = ask(
        host,
        """
inet = nftables.FAMILY_INET
listed = nftables.rules(inet, "much", "one")
named = rtnetlink.text_attr(1, "much") + rtnetlink.text_attr(2, "one")
gone = [(8, 0, named + netlink.attr(3, handle)) for handle, _ in listed]
with nftables._NfTables(inet) as asked:
    try:
        asked.transact([*gone, gone[7]])
    except NetlinkError as error:
        refused = [error.errno, error.position]
left = len(nftables.rules(inet, "much", "one"))
nftables.remove_rules(inet, "much", "one", lambda userdata: b"mine" in userdata)
print(json.dumps([len(listed), refused, left, len(nftables.rules(inet, "much", "one"))]))
""",
    )
    assert said == [4000, [2, 4000], 4000, 0]


def test_permanent_entries_are_listed_while_others_come_and_go(host: Host) -> None:
    said = ask(
        host,
        """
import os
with Netlink() as asked:
    asked.call(*giving(range(3000)))
    wanted = {address(one) for one in range(1000, 3000)}
    child = os.fork()
    if child == 0:
        with Netlink() as own:
            while os.getppid() != 1:
                own.refusals(*(rtnetlink.delete_address(1, address(one), 32) for one in range(0, 1000, 50)))
                own.refusals(*giving(range(0, 1000, 50)))
    lacking = []
    try:
        for _ in range(20):
            lacking.append(len(wanted - held(asked)))
    finally:
        os.kill(child, 9)
        os.waitpid(child, 0)
    print(json.dumps(sum(lacking)))
""",
    )
    assert said == 0
