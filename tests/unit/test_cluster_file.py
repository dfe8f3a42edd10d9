"""cluster.toml: its keys, the message for each mistake, free CIDRs, and how a node follows the file."""

import os
import threading
import time
from pathlib import Path

import pytest

from cnictl.core.errors import UsageProblem
from cnictl.node.plugin import ownership
from cnictl.node.reach import cluster_file
from cnictl.node.reach.cluster_file import ClusterNode, FileSource, assign_free, find_self, parse, without_node
from cnictl.node.reach.source import Announcement, SourceLost

LINES = """\
# the cluster in the cellar
network = "10.244.0.0/20"

nodes = [
  { name = "node1", address = "10.0.0.210", pod_cidr = "10.244.0.0/24" },  # rack 1
  { name = "node2", address = "10.0.10.51", pod_cidr = "10.244.1.0/24", ssh = "admin@node2.example" },
  # rack 2
  { name = "node3", address = "10.0.2.53" }
]
"""
TABLES = """\
# the cluster in the cellar
network = ["10.244.0.0/20", "fd00:244::/48"]

[[nodes]]
name = "node1"       # rack 1
addresses = ["10.0.0.210", "fd00:10::210"]
pod_cidr = ["10.244.0.0/24", "fd00:244::/64"]

# rack 2
[[nodes]]
name = "node2"
addresses = ["10.0.10.51", "fd00:10::51"]
pod_cidr = "10.244.1.0/24"
"""


def test_both_forms_are_read() -> None:
    lines = parse(LINES)
    assert lines.networks == ("10.244.0.0/20",)
    assert lines.node_prefixes == (24,)
    assert lines.nodes[1] == ClusterNode("node2", ("10.0.10.51",), ("10.244.1.0/24",), "admin@node2.example")
    assert lines.nodes[2].pod_cidrs == ()
    tables = parse(TABLES)
    assert tables.node_prefixes == (24, 64)
    assert tables.nodes[0].pod_cidrs == ("10.244.0.0/24", "fd00:244::/64")
    assert tables.nodes[1].addresses == ("10.0.10.51", "fd00:10::51")


def _one(more: str = "", name: str = "node1", address: str = "10.0.0.210") -> str:
    return f'network = "10.244.0.0/20"\nnodes = [\n  {{ name = "{name}", address = "{address}"{more} }},\n]\n'


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "'network' is missing"),
        ('network = "10.244.0.0/20"\n', "'nodes' is missing"),
        ('network = "10.244.0.0/20"\nnodes = []\n', "line 2: 'nodes' is empty"),
        ('netwrok = "10.244.0.0/20"\n', "line 1: unknown key 'netwrok'; did you mean 'network'"),
        ('\nnetwork = "10.244.0.1/20"\nnodes = []\n', "line 2: network '10.244.0.1/20': has host bits set"),
        ('network = "0.0.0.0/0"\nnodes = []\n', "contains every address"),
        ('network = ["10.1.0.0/16", "10.2.0.0/16"]\nnodes = []\n', "are both IPv4: at most one"),
        ("network = 5\nnodes = []\n", "network = 5 has to be a CIDR in quotes"),
        ('node_prefix = "24"\n' + LINES, "line 1: node_prefix = '24' has to be a whole"),
        ('node_prefix = 16\n' + LINES, "node_prefix 16 does not fit"),
        ('node_prefix = 31\n' + LINES, "node_prefix 31 does not fit"),
        ('node_prefix = [24, 64]\n' + LINES, "one prefix length for each network"),
        ('network = "10.244.0.0/20"\nnodes = "node1"\n', "'nodes' has to be a list of tables"),
        ('network = 10.244.0.0/20\nnodes = []\n', "line 1: the value needs quotes"),
        ('network = "10.244.0.0/20"\n[nodes]\nname = "a"\n[nodes]\nname = "b"\n', "table 'nodes' is already on line 2"),
        (_one(name="Node1"), "line 3: name 'Node1' is not a host name"),
        (_one(name="-oProxyCommand=x"), "is not a host name"),
        (_one(name="a" * 64), "is not a host name"),
        (_one(name=r"a\u001b[31m"), "is not a host name"),
        (_one(", adress = 1"), "line 3: node node1: unknown key 'adress'; did you mean 'address'"),
        (_one(', addresses = ["10.0.0.1"]'), "has both 'address' and 'addresses'"),
        ('network = "10.244.0.0/20"\nnodes = [{ name = "node1" }]\n', "line 2: node node1: has no 'address'"),
        ('network = "10.244.0.0/20"\nnodes = [{ address = "10.0.0.1" }]\n', "a node has no 'name'"),
        (_one(address="10.0.0.300"), "octet 300 is over 255"),
        (_one(address="10.244.3.1"), "lies in the pod network 10.244.0.0/20"),
        (_one(address="224.0.0.1"), "not an address that a host can have"),
        (_one(address="fe80::1"), "is link-local"),
        (_one(address="fd00::1"), "has no IPv4 address"),
        (_one(', pod_cidr = "10.244.1.7/24"'), "line 3: node node1: pod_cidr '10.244.1.7/24': has host bits set"),
        (_one(', pod_cidr = "10.245.1.0/24"'), "lies outside the network 10.244.0.0/20"),
        (_one(', pod_cidr = "fd00::/64"'), "there is no IPv6 network"),
        (_one(', pod_cidr = ["10.244.0.0/24", "10.244.1.0/24"]'), "are both IPv4: at most one"),
        (_one(', pod_cidr = ""'), "is empty"),
        (_one(', ssh = "-oProxyCommand=reboot"'), "is not a host or user@host"),
        (_one(', ssh = "root@node1 -p 22"'), "is not a host or user@host"),
        (_one(', ssh = "$(reboot)"'), "is not a host or user@host"),
        (_one(', name = "node2"'), "line 3: 'name' is set twice: "),
        (LINES.replace("node3", "node1"), "line 8: two nodes have the name node1"),
        (LINES.replace("10.0.2.53", "10.0.10.51"), "line 8: nodes node2 and node3 have the same address 10.0.10.51"),
        (LINES.replace('53" }', '53", ssh = "admin@node2.example" }'), "line 8: nodes node2 and node3 have the same"),
        (LINES.replace("10.244.1.0/24", "10.244.0.0/24"), "line 6: nodes node1 and node2 have the same pod_cidr"),
        (LINES.replace("10.244.1.0/24", "10.244.2.0/23"), "line 6: node node2: pod_cidr 10.244.2.0/23 has to be a /24"),
        ("node_prefix = 25\n" + LINES, "node node1: pod_cidr 10.244.0.0/24 has to be a /25"),
        (TABLES.replace("10.0.10.51", "10.0.0.210"), "line 10: nodes node1 and node2 have the same address"),
        ("a = " + "[" * 20000, "nested too deep"),
        ("a = " + "1" * 20000, "a number that is too long"),
    ],
)  # fmt: skip
def test_each_mistake_is_named_with_its_line(text: str, said: str) -> None:
    with pytest.raises(UsageProblem) as raised:
        parse(text, "cluster.toml")
    assert said in raised.value.message
    assert raised.value.message.startswith("cluster.toml: ")
    assert raised.value.message.isprintable()


def test_more_nodes_than_a_file_may_have_are_refused() -> None:
    nodes = "".join(f'{{name="n{i}",address="10.{i >> 8}.{i & 255}.1"}},\n' for i in range(5001))
    with pytest.raises(UsageProblem, match="at most 5,000"):
        parse(f'network = "172.16.0.0/12"\nnodes = [\n{nodes}]\n')


def test_file_of_more_than_four_mebibytes_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "cluster.toml"
    path.write_text(LINES + "#" * (4 << 20))
    with pytest.raises(OSError, match="larger than the limit"):
        cluster_file.load(str(path))


def test_missing_cidrs_are_filled_in_and_nothing_else_changes() -> None:
    text, assigned = assign_free(LINES)
    assert assigned == {"node3": ("10.244.2.0/24",)}
    assert text == LINES.replace('"10.0.2.53" }', '"10.0.2.53", pod_cidr = "10.244.2.0/24" }')
    assert assign_free(text) == (text, {})


def test_free_cidr_of_the_missing_family_joins_the_other() -> None:
    text, assigned = assign_free(TABLES)
    assert assigned == {"node2": ("fd00:244:0:1::/64",)}
    assert text == TABLES.replace('= "10.244.1.0/24"', '= ["10.244.1.0/24", "fd00:244:0:1::/64"]')
    dual = LINES.replace('"10.244.0.0/20"', '["10.244.0.0/20", "fd00:244::/48"]').replace("address =", "addresses =")
    for number, address in enumerate(("10.0.0.210", "10.0.10.51", "10.0.2.53")):
        dual = dual.replace(f'"{address}"', f'["{address}", "fd00:10::{number}1"]')
    text, assigned = assign_free(dual)
    assert assigned["node1"] == ("fd00:244::/64",)
    assert assigned["node3"] == ("10.244.2.0/24", "fd00:244:0:2::/64")
    assert "# rack 1" in text and "# rack 2" in text
    assert parse(text).nodes[2].pod_cidrs == ("10.244.2.0/24", "fd00:244:0:2::/64")


def test_lowest_free_cidrs_of_the_same_length_are_chosen() -> None:
    text, assigned = assign_free(
        'network = "10.244.0.0/20"\nnodes = [\n'
        ' { name = "a", address = "10.0.0.1" }, { name = "b", address = "10.0.0.2", pod_cidr = "10.244.0.64/26" },\n'
        ' { name = "c", address = "10.0.0.3" },\n]\n'
    )
    assert assigned == {"a": ("10.244.0.0/26",), "c": ("10.244.0.128/26",)}
    assert parse(text).node_prefixes == (26,)


def test_network_without_a_free_cidr_is_named() -> None:
    with pytest.raises(UsageProblem, match=r"no free /24 is left in network 10\.244\.0\.0/23"):
        assign_free(LINES.replace("10.244.0.0/20", "10.244.0.0/23"))


def test_five_thousand_nodes_get_their_cidrs_in_seconds() -> None:
    nodes = "".join(f'  {{ name = "n{i}", address = "10.{i >> 8}.{i & 255}.1" }},\n' for i in range(5000))
    start = time.monotonic()
    text, assigned = assign_free(f'network = "172.16.0.0/11"\nnodes = [\n{nodes}]\n'.replace("172.16", "172.0"))
    assert len(assigned) == 5000
    assert len(parse(text).nodes) == 5000
    assert time.monotonic() - start < 20


@pytest.mark.parametrize("name", ["node1", "node2", "node3"])
def test_removing_a_node_removes_only_its_line(name: str) -> None:
    text = without_node(LINES, name)
    assert text == "".join(line for line in LINES.splitlines(keepends=True) if f'"{name}"' not in line)
    assert name not in [node.name for node in parse(text).nodes]


def test_removing_a_table_removes_its_comment() -> None:
    assert without_node(TABLES, "node2") == TABLES.partition("# rack 2")[0]
    assert "# rack 2" in without_node(TABLES, "node1")


def test_unknown_or_only_node_is_not_removed() -> None:
    with pytest.raises(UsageProblem, match="has no node 'nod1'"):
        without_node(LINES, "nod1")
    with pytest.raises(UsageProblem, match="only node"):
        without_node(_one(), "node1")


def test_crlf_and_nodes_on_one_line_stay() -> None:
    nodes = '{ name = "a", address = "10.0.0.1" }, { name = "b", address = "10.0.0.2" }'
    text = f'network = "10.244.0.0/20"\r\nnodes = [{nodes}]\r\n'
    edited, _ = assign_free(text)
    assert edited.count("\r\n") == 2 and 'pod_cidr = "10.244.1.0/24" }]' in edited
    assert 'nodes = [{ name = "b", address = "10.0.0.2" }]\r\n' in without_node(text, "a")
    assert [node.name for node in parse(without_node(text, "b")).nodes] == ["a"]


def test_host_finds_itself_by_its_addresses() -> None:
    cluster = parse(LINES)
    assert find_self(cluster, ["127.0.0.1", "10.0.10.51/20", "fe80::1%eth0"]).name == "node2"
    with pytest.raises(UsageProblem, match=r"one of this host's addresses: 10\.0\.9\.9, 192\.0\.2\.1$"):
        find_self(cluster, ["127.0.0.1/8", "::1", "10.0.9.9", "192.0.2.1"])
    with pytest.raises(UsageProblem, match=r"2 nodes .* node1 \(10\.0\.0\.210\), node2 \(10\.0\.10\.51\)"):
        find_self(cluster, ["10.0.0.210", "10.0.10.51"])


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cluster file whose folder counts as writable only by root."""
    monkeypatch.setattr(ownership, "fault", lambda _: "")
    monkeypatch.setattr(cluster_file, "_LOOK_SECONDS", 0.01)
    path = tmp_path / "cluster.toml"
    path.write_text(LINES)
    return path


def test_source_lists_the_nodes(path: Path) -> None:
    source = FileSource(str(path))
    assert source.title == f"file {path}"
    snapshot = source.list()
    assert snapshot.networks == ("10.244.0.0/20",)
    assert snapshot.nodes[1] == Announcement("node2", ("10.244.1.0/24",), ("10.0.10.51",))
    assert snapshot.nodes[2].pod_cidrs == ()
    assert source.list().version == snapshot.version


def test_source_reports_each_valid_change_also_behind_a_link(path: Path) -> None:
    source = FileSource(str(path))
    version = source.list().version
    path.write_text(LINES.replace("node3", "node4"))
    watching = source.watch(version)
    assert [node.name for node in next(watching).nodes] == ["node1", "node2", "node4"]
    other = path.with_name("other.toml")
    other.write_text(LINES.replace("node3", "node5"))
    link = path.with_name("link")
    link.symlink_to(other)
    os.replace(link, path)
    assert [node.name for node in next(watching).nodes] == ["node1", "node2", "node5"]


def test_invalid_or_missing_source_is_lost_with_the_reason(path: Path) -> None:
    source = FileSource(str(path))
    version = source.list().version
    path.write_text("network =\n")
    with pytest.raises(SourceLost, match="line 1: 'network' has no value"):
        next(source.watch(version))
    with pytest.raises(UsageProblem, match="line 1"):
        source.list()
    path.unlink()
    with pytest.raises(SourceLost, match="is missing"):
        next(source.watch(version))
    with pytest.raises(SourceLost, match="is missing"):
        source.list()
    path.symlink_to(path.with_name("nowhere"))
    with pytest.raises(SourceLost, match="is missing"):
        source.list()


def test_file_that_others_can_change_is_not_used(tmp_path: Path) -> None:
    path = tmp_path / "cluster.toml"
    path.write_text(LINES)
    path.chmod(0o666)
    source = FileSource(str(path))
    with pytest.raises(UsageProblem, match="users other than root can change it"):
        source.list()
    with pytest.raises(SourceLost, match="users other than root can change it"):
        next(source.watch(""))


def test_close_ends_watching_within_a_second(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    monkeypatch.setattr(ownership, "fault", lambda _: "")
    source = FileSource(str(path))
    seen: list[object] = []
    version = source.list().version
    watching = threading.Thread(target=lambda: seen.extend(source.watch(version)))
    watching.start()
    source.close()
    watching.join(1.0)
    assert not watching.is_alive() and not seen
