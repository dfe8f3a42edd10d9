"""The rows, choices and refusals of `cnictl ipam`, from leases and records without a store."""

import json
from pathlib import Path
from typing import Any

import pytest

from cnictl.cli.ipam import Order
from cnictl.core.attachments import Record
from cnictl.core.cidr import parse_cidr
from cnictl.core.errors import Problem
from cnictl.core.leases.lease import Lease
from cnictl.core.leases.pool import Range, RangeSet
from cnictl.core.liveness import IN_FLIGHT, LIVE, STALE, UNKNOWN, Verdict
from cnictl.node.addresses import lease_list, ranges, reclaim
from cnictl.node.addresses.lease_list import TORN, Listing, Row
from cnictl.node.spec.node_spec import NodeSpec


def make_record(container: str, *addresses: str, ifname: str = "eth0", veth: str = "veth1") -> Record:
    record = Record("mynet", container, ifname)
    record.addresses, record.host_veth, record.created, record.pod_namespace, record.pod_name = (
        list(addresses),
        veth,
        50.0,
        "ns",
        "p",
    )
    return record


def assemble(leases: list[Lease], records: list[Record], state: str = LIVE) -> list[Row]:
    verdicts = {(record.container, record.ifname): Verdict(state, "judged") for record in records}
    return lease_list.assemble(leases, records, verdicts, lambda lease: Verdict(UNKNOWN, f"lone {lease.address}"))


def make_row(state: str, reason: str = "why", **fields: Any) -> Row:
    whole = {"address": "10.244.0.2", "container": "c1", "ifname": "eth0", "pod": "", "since": 5.0, "leased": True}
    return Row(**{**whole, **fields}, state=state, reason=reason)


def test_a_lease_and_its_record_are_one_row() -> None:
    record = make_record("c1", "10.244.0.2")
    (row,) = assemble([Lease("10.244.0.2", "c1", "eth0", 40.0)], [record])
    assert row == Row("10.244.0.2", "c1", "eth0", "ns/p", 50.0, LIVE, "judged", True, record)
    assert (row.words, row.holder) == ("live", "pod ns/p")


def test_rows_are_in_the_order_of_the_addresses_not_of_their_text() -> None:
    leases = [Lease(f"10.244.0.{last}", f"c{last}", "eth0", 1.0) for last in (10, 9, 2, 100)]
    assert [row.address for row in assemble(leases, [])] == ["10.244.0.2", "10.244.0.9", "10.244.0.10", "10.244.0.100"]


def test_a_lease_without_a_record_is_judged_by_itself() -> None:
    (row,) = assemble([Lease("10.244.0.2", "abcdef0123456789", "eth0", 40.0)], [])
    assert (row.state, row.reason, row.since, row.record) == (UNKNOWN, "lone 10.244.0.2", 40.0, None)
    assert (row.words, row.holder) == ("unknown: lone 10.244.0.2", "abcdef012345 eth0")


def test_two_addresses_of_one_owner_are_two_rows_of_one_record() -> None:
    record = make_record("c1", "10.244.0.2")
    leases = [Lease("10.244.0.2", "c1", "eth0", 1.0), Lease("10.244.0.3", "c1", "eth0", 1.0)]
    assert [row.record for row in assemble(leases, [record])] == [record, record]


def test_a_record_without_its_lease_says_so() -> None:
    (row,) = assemble([], [make_record("c1", "10.244.0.2")], STALE)
    assert not row.leased
    assert row.words == "stale: judged; it has no lease"
    (live,) = assemble([], [make_record("c1", "10.244.0.2")], LIVE)
    assert live.words == "live: judged; it has no lease"


def test_an_attachment_without_address_is_a_row_too() -> None:
    (row,) = assemble([], [make_record("c1")])
    assert (row.address, row.leased, row.words) == ("", False, "live")
    assert row.as_json()["address"] is None
    (stale,) = assemble([], [make_record("c1")], STALE)
    assert reclaim.keep_reason(stale) == ""
    assert reclaim.refusal(row, force=False).startswith("the attachment is live: pod ns/p")
    leased = [Lease("10.244.0.2", "c1", "eth0", 1.0)]  # if the record is torn, the lease is still a row
    assert [row.address for row in assemble(leased, [make_record("c1")])] == ["10.244.0.2"]


def test_an_address_of_another_ipam_plugin_has_no_lease_here() -> None:
    record = make_record("c1", "192.0.2.9")
    record.ipam = "dhcp"
    assert [row.words for row in assemble([], [record])] == ["live: judged; dhcp gave its address"]


def test_the_addresses_of_an_attachment_are_found_together() -> None:
    dual_stack, other = make_record("c1", "10.244.0.2", "fd00::2"), make_record("c2", "10.244.0.3")
    leases = [Lease(address, "c1", "eth0", 1.0) for address in dual_stack.addresses] + [
        Lease("10.244.0.3", "c2", "eth0", 1.0)
    ]
    rows = assemble(leases, [dual_stack, other])
    assert [row.address for row in rows] == ["10.244.0.2", "10.244.0.3", "fd00::2"]
    assert [row.address for row in lease_list.attachments_of(rows, rows[2:])] == ["10.244.0.2", "fd00::2"]
    unrecorded = assemble([Lease("10.244.0.2", "c1", "eth0", 1.0), Lease("10.244.0.4", "c1", "eth0", 1.0)], [])
    assert lease_list.attachments_of(unrecorded, unrecorded[:1]) == unrecorded[:1]


def test_an_address_with_two_owners_is_shown_twice() -> None:
    rows = assemble([Lease("10.244.0.2", "c2", "eth0", 1.0)], [make_record("c1", "10.244.0.2")])
    assert [(row.container, row.leased) for row in rows] == [("c1", False), ("c2", True)]
    assert rows[0].words == "live: judged; c2 eth0 holds its lease"


def test_a_torn_lease_names_the_record_that_has_its_address() -> None:
    torn = Lease("10.244.0.2", "", "", 1.0)
    (alone,) = assemble([torn], [])
    assert (alone.state, alone.record) == (TORN, None)
    assert reclaim.keep_reason(alone) == ""
    (named,) = assemble([torn], [make_record("c1", "10.244.0.2")])
    assert named.state == TORN and "the record of c1 eth0 has the address" in named.reason
    assert reclaim.keep_reason(named)


def test_rows_have_the_requested_order() -> None:
    rows = (
        make_row(LIVE, address="10.244.0.10", since=3.0, pod="b/web", container="c1"),
        make_row(STALE, address="10.244.0.9", since=1.0, pod="", container="c2"),
        make_row(LIVE, address="", since=0.0, pod="a/db", container="c3"),
    )
    listing = Listing("mynet", "d", rows)

    def containers(order: str, stale: bool = False) -> list[str]:
        return [row.container for row in listing.ordered(order, stale).rows]

    assert containers("address") == ["c3", "c2", "c1"]
    assert containers("age") == ["c2", "c1", "c3"]
    assert containers("pod") == ["c3", "c1", "c2"]
    assert containers("state") == ["c1", "c3", "c2"]
    assert containers("state", stale=True) == ["c2"]


def test_orders_are_the_values_of_the_option() -> None:
    assert [str(order) for order in Order] == list(lease_list.ORDERS)


def test_utilisation_counts_leases_and_knows_those_outside() -> None:
    rows = assemble([Lease(f"10.244.0.{last}", f"c{last}", "eth0", 1.0) for last in (2, 3, 200)], [])
    assert (Listing("n", "d", tuple(rows)).used, Listing("n", "d", tuple(rows)).total) == (3, None)
    listing = Listing("n", "d", tuple(rows), (RangeSet([Range(parse_cidr("10.244.0.0/25"))]),))
    assert (listing.used, listing.outside, listing.total, listing.free) == (3, 1, 125, 123)
    assert listing.as_json()["ranges"] == ["10.244.0.0/25"]
    json.dumps(listing.as_json())
    two_sets = Listing("n", "d", tuple(rows), (*listing.sets, RangeSet([Range(parse_cidr("10.244.0.192/26"))])))
    assert [(range_set["used"], range_set["total"]) for range_set in two_sets.as_json()["range_sets"]] == [
        (2, 125),
        (1, 61),
    ]
    assert (two_sets.used, two_sets.outside, two_sets.free) == (3, 0, 183)
    part = Range(parse_cidr("10.9.0.0/24"), 0x0A090002, 0x0A090009)
    six = RangeSet([Range(parse_cidr("fd00::/64"))])
    assert Listing("n", "d", (), (RangeSet([part]), six)).ranges == ["10.9.0.2-10.9.0.9", "fd00::/64"]


def test_the_network_is_the_requested_one_the_node_s_or_the_only_one() -> None:
    assert lease_list.choose_network("podman", "mynet", ["mynet", "podman"]) == "podman"
    assert lease_list.choose_network("", "mynet", ["podman"]) == "mynet"
    assert lease_list.choose_network("mynet", "mynet", []) == "mynet"
    assert lease_list.choose_network("", "", ["podman"]) == "podman"
    with pytest.raises(Problem, match="several networks") as several:
        lease_list.choose_network("", "", ["a", "b"])
    assert several.value.hint == "networks here: a, b"
    with pytest.raises(Problem, match="network 'c' has no leases here"):
        lease_list.choose_network("c", "", ["a", "b"])
    with pytest.raises(Problem, match="no network has leases"):
        lease_list.choose_network("", "", [])


def test_a_row_is_found_by_address_container_or_the_beginning_of_its_id() -> None:
    rows = [
        make_row(LIVE, address="10.244.0.2", container="aa11"),
        make_row(LIVE, address="10.244.0.3", container="aa22"),
    ]
    rows.append(make_row(LIVE, address="10.244.0.4", container="aa22", ifname="net1"))
    rows.append(make_row(LIVE, address="10.244.0.5", container="aa"))
    assert lease_list.find(rows, "10.244.0.3") == [rows[1]]
    assert lease_list.find(rows, "aa2") == rows[1:3]
    assert lease_list.find(rows, "aa") == [rows[3]]
    with pytest.raises(Problem, match="begins the ids of several containers: aa, aa11, aa22"):
        lease_list.find(rows, "a")
    with pytest.raises(Problem, match="neither a leased address nor a container"):
        lease_list.find(rows, "10.244.0")
    with pytest.raises(Problem, match="neither"):
        lease_list.find(rows, "")
    with pytest.raises(Problem, match=r"10\.244\.0\.9 is not leased"):
        lease_list.find(rows, "10.244.0.9")


@pytest.mark.parametrize(
    ("state", "plain", "forced", "kept"),
    [(LIVE, True, False, True), (UNKNOWN, True, False, True), (IN_FLIGHT, True, True, True),
     (STALE, False, False, False), (TORN, False, False, False)],
)  # fmt: skip
def test_release_and_gc_free_only_permitted_states(state: str, plain: bool, forced: bool, kept: bool) -> None:
    row = make_row(state, pod="ns/web")
    assert bool(reclaim.refusal(row, force=False)) is plain
    assert bool(reclaim.refusal(row, force=True)) is forced
    assert bool(reclaim.keep_reason(row)) is kept
    if plain:
        assert "pod ns/web" in reclaim.refusal(row, force=False)


def test_a_release_as_manual_commands() -> None:
    listing = Listing("mynet", "/var/lib/cni/networks", ())
    record = make_record("c1", "10.244.0.2", veth="veth1234abcd")
    assert reclaim.commands(listing, make_row(STALE, record=record)) == [
        "ip link delete veth1234abcd",
        "rm /var/lib/cni/networks/mynet/10.244.0.2",
        "rm /var/lib/cnictl/attachments/mynet/c1@eth0",
    ]
    assert reclaim.commands(listing, make_row(STALE)) == ["rm /var/lib/cni/networks/mynet/10.244.0.2"]
    assert reclaim.commands(listing, make_row(TORN, record=record)) == ["rm /var/lib/cni/networks/mynet/10.244.0.2"]
    assert reclaim.commands(listing, make_row(STALE, leased=False, record=record))[1:] == [f"rm {record.path}"]


def test_a_dry_run_changes_nothing() -> None:
    rows = (make_row(STALE, "gone"), make_row(LIVE, "there"), make_row(TORN, "no owner"))
    outcomes = reclaim.collect(Listing("mynet", "/nowhere", rows), dry_run=True)
    assert [(outcome.action, outcome.reason) for outcome in outcomes] == [
        ("would free", "gone"), ("left", "there"), ("would free", "no owner"),
    ]  # fmt: skip


# --- where the size of a network is read


def test_the_node_file_takes_precedence(tmp_path: Path) -> None:
    spec = NodeSpec(("10.244.0.0/24",), ("10.244.0.0/20",), name="mynet")
    network = ranges.of_network("mynet", spec, [str(tmp_path)])
    assert [range_set.size for range_set in network.sets] == [253]
    assert ranges.of_network("other", spec, [str(tmp_path)]).sets == ()


def test_pool_comes_from_a_conf_of_another_plugin(tmp_path: Path) -> None:
    ipam_object = {
        "type": "host-local",
        "dataDir": "/srv/leases",
        "ranges": [
            [{"subnet": "10.88.0.0/16", "gateway": "10.88.0.1"}],
            [{"subnet": "10.89.0.0/24", "rangeStart": "10.89.0.10", "rangeEnd": "10.89.0.19"}],
        ],
    }
    bridge = {"type": "bridge", "ipam": ipam_object}
    (tmp_path / "87-podman.conflist").write_text(json.dumps({"name": "podman", "plugins": [{"type": "x"}, bridge]}))
    (tmp_path / "10-broken.conf").write_text("{")
    (tmp_path / "20-list.json").write_text("[]")
    (tmp_path / "30-ignored.txt").write_text(json.dumps({"name": "podman", "plugins": []}))
    network = ranges.of_network("podman", None, ["/nowhere", str(tmp_path)])
    assert [range_set.size for range_set in network.sets] == [65533, 10]
    assert network.data_dir == "/srv/leases"


def test_pool_comes_from_our_own_conf_and_the_flat_form() -> None:
    ours = {"name": "mynet", "plugins": [{"type": "cnictl-bridge", "subnet": "10.244.0.0/24"}, {"type": "portmap"}]}
    flat = {"name": "old", "type": "bridge", "ipam": {"type": "host-local", "subnet": "10.9.0.0/25"}}
    for document, size in ((ours, 253), (flat, 125)):
        network = ranges.of_configuration(document)
        assert network is not None and [range_set.size for range_set in network.sets] == [size]


@pytest.mark.parametrize(
    "document",
    [
        {"name": "dhcp", "type": "macvlan", "ipam": {"type": "dhcp"}},
        {"name": "none", "type": "bridge"},
        {"name": "bad", "type": "bridge", "ipam": {"type": "host-local", "ranges": [[5]]}},
        {"name": "bad", "type": "bridge", "ipam": []},
        {"name": "bad", "plugins": [5, {"type": "bridge"}]},
        {"name": "bad", "type": "cnictl-bridge", "subnet": 5},
    ],
)
def test_pool_is_unknown_without_a_source(document: dict[str, Any]) -> None:
    assert ranges.of_configuration(document) is None


def test_store_of_a_network_with_ranges_of_the_runtime_is_from_the_conf() -> None:
    elsewhere = {"type": "host-local", "dataDir": "/var/lib/cni/elsewhere"}
    network = ranges.of_configuration({"name": "never-seen", "type": "cnictl-bridge", "ipam": elsewhere})
    assert network is not None and (network.sets, network.data_dir) == ((), "/var/lib/cni/elsewhere")
