"""`cnictl ipam check` probes the bridge in both families, and reports if it can't."""

import json
import uuid
from typing import Any

import pytest

from cnictl.lab.lab import Node
from tests.kernel.commands import call, cnictl
from tests.waiting import wait_for

pytestmark = pytest.mark.once

Json = dict[str, Any]

SUBNETS = ("--subnet", "10.244.0.0/24", "--subnet", "fd00:244::/64", "--network", "10.244.0.0/20", "--network",
           "fd00:244::/56")  # fmt: skip


def dual(node: Node, *names: str) -> dict[str, list[str]]:
    """Set up a dual-stack node with these pods, and return the addresses of each."""
    cnictl(node, "init-node", *SUBNETS)
    addresses = {}
    for name in names:
        node.run(["ip", "netns", "add", name])
        addresses[name] = [ip["address"].partition("/")[0] for ip in call(node, "ADD", name)["ips"]]
    return addresses


def checked(node: Node, status: int, *words: str) -> dict[str, Json]:
    """Return the rows of `ipam check` by address."""
    done = cnictl(node, "ipam", "check", "-o", "json", *words, check=False)
    assert done.status == status, (done.stdout, done.stderr)
    return {row["address"]: row for row in json.loads(done.stdout)["items"]}


def test_every_family_is_probed_on_the_link(node: Node) -> None:
    pods = dual(node, "sound", "twice", "thief")
    four, six = pods["sound"]
    assert all("answers for it" in row["evidence"] for row in checked(node, 0).values())
    twice = pods["twice"]
    prefixes = [f"{twice[0]}/24", f"{twice[1]}/64"]
    for prefix in prefixes:
        node.run(["ip", "-n", "thief", "address", "add", prefix, "dev", "eth0", *(["nodad"] if ":" in prefix else [])])
    rows = checked(node, 1)
    assert {address: rows[address]["found"] for address in twice} == dict.fromkeys(twice, "seen twice on the wire")
    assert {rows[four]["found"], rows[six]["found"]} == {"live"}
    assert all("answers" not in row["evidence"] for row in checked(node, 0, "--no-wire").values())


def test_an_address_in_use_of_a_pod_that_is_gone_is_found(node: Node) -> None:
    pods = dual(node, "gone", "thief")
    node.run(["ip", "netns", "delete", "gone"])
    wait_for(lambda: "stale" in cnictl(node, "ipam", "list").stdout, "its links are gone")
    assert {row["found"] for row in checked(node, 1).values()} == {"namespace gone", "live"}
    for address, more in zip(pods["gone"], ([], ["nodad"]), strict=True):
        node.run(["ip", "-n", "thief", "address", "add", f"{address}/{24 + 40 * bool(more)}", "dev", "eth0", *more])
    rows = checked(node, 1)
    assert {rows[address]["found"] for address in pods["gone"]} == {"seen twice on the wire"}


@pytest.mark.parametrize(
    ("spoil", "said"),
    [("ip link delete cni0", "cni0: No such device"), ("ip link set cni0 down", "cni0: Network is down")],
)
def test_without_a_bridge_rows_are_shown_with_an_unknown_answer(node: Node, spoil: str, said: str) -> None:
    dual(node, "pod")
    node.run(spoil.split())
    rows = checked(node, 1)
    assert [row["found"] for row in rows.values()] == ["live", "live"]
    assert all("not checked on the bridge" in row["evidence"] for row in rows.values())
    done = cnictl(node, "ipam", "check", check=False)
    assert said in done.stderr and "cnictl apply" in done.stderr
    cnictl(node, "apply")
    assert all("answers for it" in row["evidence"] for row in checked(node, 0).values())


def test_after_a_reboot_and_before_apply_the_stale_rows_are_shown(node: Node) -> None:
    dual(node, "pod")
    node.run(["sh", "-c", "ip netns delete pod; ip link delete cni0; nft flush ruleset; rm -rf /run/cnictl; "
              f"echo {uuid.uuid4()} > /tmp/boot_id; "
              "mount --bind /tmp/boot_id /proc/sys/kernel/random/boot_id"])  # fmt: skip
    rows = checked(node, 1)
    assert {row["found"] for row in rows.values()} == {"stale boot"} and len(rows) == 2
    assert cnictl(node, "ipam", "gc").status == 0
    assert checked(node, 0) == {}  # no address is in use, so the link is not probed
