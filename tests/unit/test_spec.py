"""Read the node file strictly, write it carefully, and refuse wrong addresses before any change."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cnictl.core.errors import UsageProblem
from cnictl.node.spec import addressing, node_file, peers
from cnictl.node.spec.node_spec import FAMILIED, NodeSpec, Peer, as_data, from_data

WALK_THROUGH = NodeSpec(("10.244.0.0/24",), ("10.244.0.0/20",), peers=(Peer("10.244.1.0/24", "10.0.10.51"),))

COMMENTED = """\
# our node, rack 7
subnet = "10.244.0.0/24"   # given by the network team
network = "10.244.0.0/20"

# see ticket 4711
mtu = 1400

[[peers]]
# the database node
pod_cidr = "10.244.1.0/24"
via = "10.0.10.51"   # moved in spring

[[peers]]
pod_cidr = "10.244.2.0/24"
via = "10.0.10.52"
"""


DUAL_STACK = replace(
    WALK_THROUGH,
    subnets=("10.244.0.0/24", "fd00:244::/64"),
    networks=("10.244.0.0/20", "fd00:244::/48"),
    peers=(*WALK_THROUGH.peers, Peer("fd00:244:0:1::/64", "fd00:10::51")),
)


def in_fields(change: dict[str, Any]) -> dict[str, Any]:
    """Return the file's keys as fields of the spec."""
    return {FAMILIED.get(key, key): texts(value) if key in FAMILIED else value for key, value in change.items()}


def texts(value: str | tuple[str, ...]) -> tuple[str, ...]:
    """Return the value as the spec has it: a tuple with one text for each family."""
    return (value,) if isinstance(value, str) else value


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"subnet": "10.244.0.1/24"}, "subnet '10.244.0.1/24': has host bits set; did you mean 10.244.0.0/24"),
        ({"subnet": "10.244.0.0/31"}, "/31 has no room for a gateway and a pod, the longest usable prefix is /30"),
        ({"subnet": "10.244.0.0/32"}, "/32 has no room"),
        ({"subnet": "10.244.0.0"}, "has no prefix length; did you mean 10.244.0.0/24"),
        ({"subnet": "10.244.256.0/24"}, "octet 256 is over 255"),
        ({"subnet": "10.244.00.0/24"}, "octet 00 has a leading zero, write 0"),
        ({"subnet": "10.244.o.0/24"}, "octet 'o' is not a number"),
        ({"subnet": "fd00::/64"}, "IPv6"),
        ({"subnet": "10.245.0.0/24"}, "subnet 10.245.0.0/24 lies outside the network 10.244.0.0/20"),
        ({"subnet": "10.244.16.0/24"}, "a network that contains both is 10.244.0.0/19"),
        (
            {"subnet": "10.244.0.0/20", "network": "10.244.0.0/24"},
            "did you mean --subnet 10.244.0.0/24 --network 10.244.0.0/20",
        ),
        ({"network": "10.244.1.0/20"}, "network '10.244.1.0/20': has host bits set; did you mean 10.244.0.0/20"),
        ({"network": "0.0.0.0/0"}, "nothing would be masqueraded"),
        ({"subnet": ""}, "subnet '': is empty, expected a CIDR such as 10.244.0.0/24"),
        ({"peers": (Peer("10.244.0.0/24", "10.0.10.51"),)}, "peer 10.244.0.0/24 is this node's own subnet"),
        (
            {"peers": (Peer("10.244.0.128/25", "10.0.10.51"),)},
            "overlaps this node's subnet 10.244.0.0/24; the first /25 of 10.244.0.0/20 outside it is 10.244.1.0/25",
        ),
        ({"peers": (Peer("10.244.16.0/24", "10.0.10.51"),)}, "peer 10.244.16.0/24 lies outside the network"),
        ({"peers": (Peer("10.244.1.0/24", "10.0.10.300"),)}, "octet 300 is over 255"),
        ({"peers": (Peer("10.244.1.0/24", "10.0.10.51/20"),)}, "did you mean 10.0.10.51"),
        ({"peers": (Peer("10.244.1.0/24", "10.244.0.7"),)}, "10.244.0.7 lies in this node's pod CIDR 10.244.0.0/24"),
        ({"peers": (Peer("10.244.1.0/24", "10.244.1.1"),)}, "10.244.1.1 lies in the pod network 10.244.0.0/20"),
        ({"peers": (Peer("10.244.1.0/24", "224.0.0.1"),)}, "not an address that a host can have"),
        (
            {"peers": (Peer("10.244.1.0/24", "10.0.10.51"), Peer("10.244.1.0/24", "10.0.10.52"))},
            "peer 10.244.1.0/24 is given twice, through 10.0.10.51 and 10.0.10.52",
        ),
        (
            {"peers": (Peer("10.244.2.0/23", "10.0.10.51"), Peer("10.244.3.0/24", "10.0.10.52"))},
            "peer 10.244.3.0/24 overlaps peer 10.244.2.0/23",
        ),
        ({"bridge": "a-bridge-with-a-name"}, "has 20 characters; a link's name has at most 15: 'a-bridge-with-a'?"),
        ({"bridge": "cni/0"}, "is not a link name"),
        ({"bridge": ""}, "is not a link name"),
        ({"uplink": "cni0"}, "is the bridge itself"),
        ({"name": "my net"}, "is not a network name"),
        ({"name": "../etc"}, "is not a network name"),
        ({"name": "n" * 201}, "has 201 characters; a network's name has at most 200"),
        ({"mtu": 20}, "mtu 20 is not within 68 to 65535"),
        ({"backend": "ipfw"}, "backend 'ipfw' is neither nft nor iptables"),
        ({"external": "example.org"}, "external 'example.org'"),
        ({"external": "2606:4700::1111"}, "external 2606:4700::1111 is IPv6"),
        ({"external": "0.0.0.0"}, "is not an address that a host can have"),
        ({"plugin_version": "../0.1.0"}, "plugin version '../0.1.0' is not a version"),
        ({"log_level": "loud"}, "log_level 'loud' is not one of debug, info, error, off"),
        ({"log_file": "plugin.log"}, "log_file 'plugin.log' is not an absolute path"),
    ],
)
def test_wrong_value_is_named_with_a_suggestion(change: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageProblem) as refused:
        addressing.check(replace(WALK_THROUGH, **in_fields(change)))
    assert said in refused.value.message
    assert "\n" not in refused.value.message
    assert refused.value.exit_status == 2


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (
            {"subnet": "10.244.0.0/24"},
            "network fd00:244::/48 is IPv6, and there is no IPv6 subnet in it: add --subnet fd00:244::/64",
        ),
        (
            {"network": "10.244.0.0/20"},
            "subnet fd00:244::/64 is IPv6, and there is no IPv6 network for it: add --network fd00:244::/48",
        ),
        (
            {"subnet": ("fd00:244::/64", "fd00:244:0:9::/64")},
            "subnet fd00:244::/64 and fd00:244:0:9::/64 are both IPv6: at most one of each family",
        ),
        ({"subnet": ("10.244.0.0/24", "fd00:244::1/64")}, "has host bits set; did you mean fd00:244::/64"),
        ({"subnet": ("10.244.0.0/24", "fd00:244::/127")}, "/127 has no room for a gateway and a pod"),
        ({"subnet": ("10.244.0.0/24", "fd00:245::/64")}, "subnet fd00:245::/64 lies outside the network fd00:244::/48"),
        ({"subnet": ("10.244.0.0/24", "fe80::/64")}, "subnet fe80::/64: pods can't have link-local addresses"),
        (
            {"network": ("10.244.0.0/20", "::/0")},
            "name a network that contains all nodes' pod CIDRs, such as fd00:244::/48",
        ),
        ({"subnet": ("10.244.0.0/24", "")}, "subnet '': is empty"),
        ({"peers": (Peer("fd00:244::/64", "fd00:10::51"),)}, "is this node's own subnet"),
        (
            {"peers": (Peer("fd00:244::8000:0:0:0/65", "fd00:10::51"),)},
            "overlaps this node's subnet fd00:244::/64; the first /65 of fd00:244::/48 outside it is fd00:244:0:1::/65",
        ),
        ({"peers": (Peer("fd00:244:0:1::/64", "10.0.10.51"),)}, "10.0.10.51 is IPv4; give the node's IPv6 address"),
        ({"peers": (Peer("fd00:244:0:1::/64", "fe80::51"),)}, "such as fe80::51%eth0"),
        ({"peers": (Peer("fd00:244:0:1::/64", "ff02::1"),)}, "not an address that a host can have"),
        ({"external": ("192.0.2.1", "192.0.2.2")}, "external 192.0.2.1 and 192.0.2.2 are both IPv4"),
        ({"mtu": 1000}, "mtu 1000 is too small for IPv6, which the kernel turns off below 1280 bytes"),
    ],
)
def test_wrong_value_of_a_dual_stack_node_is_named(change: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageProblem) as refused:
        addressing.check(replace(DUAL_STACK, **in_fields(change)))
    assert said in refused.value.message
    assert "\n" not in refused.value.message


def test_peer_of_a_family_that_the_node_lacks_is_refused() -> None:
    with pytest.raises(UsageProblem, match="peer fd00:244:0:1::/64 is IPv6, and this node has no IPv6 subnet"):
        addressing.check(replace(WALK_THROUGH, peers=DUAL_STACK.peers))


def test_dual_stack_is_right_in_either_order_and_canonical() -> None:
    assert addressing.check(DUAL_STACK) == DUAL_STACK
    shouted = replace(DUAL_STACK, subnets=("FD00:0244::/64", "10.244.0.0/24"))
    assert addressing.check(shouted).subnets == ("fd00:244::/64", "10.244.0.0/24")
    six = NodeSpec(("fd00:244::/64",), ("fd00:244::/48",), peers=(Peer("fd00:244:0:1::/64", "fe80::51", "eth0"),))
    assert addressing.check(six) == six


def test_option_may_be_repeated_or_hold_commas() -> None:
    both = ("10.244.0.0/24", "fd00:244::/64")
    assert addressing.parse_list(["10.244.0.0/24, fd00:244::/64"]) == addressing.parse_list(both) == both


def test_family_that_is_not_named_stays() -> None:
    both = ("10.244.0.0/24", "fd00:244::/64")
    assert addressing.changed_families(both, ("10.244.3.0/24",)) == ("10.244.3.0/24", "fd00:244::/64")
    assert addressing.changed_families(both[:1], ("fd00:244::/64",)) == both
    assert addressing.changed_families(both, ()) == both


@pytest.mark.parametrize("text", ["10.244.1.0/24", "10.244.1.0/24=", "=10.0.10.51", ""])
def test_peer_needs_both_sides(text: str) -> None:
    with pytest.raises(UsageProblem, match=r"is not CIDR=VIA\[%LINK\], such as 10\.244\.1\.0/24=10\.0\.10\.51"):
        peers.parse_peer(text)


def test_peer_may_name_its_link() -> None:
    assert peers.parse_peer("10.244.1.0/24=10.0.10.51%eth1") == Peer("10.244.1.0/24", "10.0.10.51", "eth1")


def test_peer_at_an_address_of_ours_is_refused() -> None:
    with pytest.raises(UsageProblem, match=r"10\.0\.10\.51 is this host's own address \(on eth0\)"):
        peers.check_not_ours(WALK_THROUGH.peers, {"10.0.10.51/20": "eth0"})


@pytest.mark.parametrize(
    ("via", "said"),
    [("10.0.15.255", "the broadcast address of 10.0.0.0/20"), ("10.0.0.0", "the network address of 10.0.0.0/20")],
)
def test_peer_at_an_address_that_no_host_can_have_is_refused(via: str, said: str) -> None:
    peer = Peer("10.244.1.0/24", via)
    with pytest.raises(UsageProblem, match=f"{via} is {said}"):
        peers.check_not_ours((peer,), {"10.0.0.210/20": "eth0"})
    for unlike in ("fe80::1/64", "10.0.15.254/31", "192.0.2.1/24"):
        peers.check_not_ours((peer,), {unlike: "eth0"})


def test_walk_through_is_valid_unchanged() -> None:
    assert addressing.check(WALK_THROUGH) == WALK_THROUGH


def test_new_file_has_the_spec() -> None:
    text = node_file.merged("", WALK_THROUGH)
    assert node_file.parse(text) == WALK_THROUGH
    assert text.startswith("#")


def test_writing_the_same_spec_changes_no_byte() -> None:
    assert node_file.merged(COMMENTED, node_file.parse(COMMENTED)) == COMMENTED


def test_comments_order_and_other_peers_stay_when_one_is_dropped_and_one_added() -> None:
    said = node_file.parse(COMMENTED)
    wanted = replace(said, mtu=9000, peers=(said.peers[0], Peer("10.244.3.0/24", "10.0.10.53", "eth1")))
    text = node_file.merged(COMMENTED, wanted)
    assert node_file.parse(text) == wanted
    for comment in ("# our node, rack 7", "# given by the network team", "# see ticket 4711", "# the database node"):
        assert comment in text
    assert text.index("subnet") < text.index("network") < text.index("mtu = 9000") < text.index("[[peers]]")
    assert "10.244.2.0" not in text


def test_key_added_after_peers_stays_a_key_of_the_node() -> None:
    text = node_file.merged(COMMENTED, replace(node_file.parse(COMMENTED), externals=("192.0.2.10",)))
    assert node_file.parse(text).externals == ("192.0.2.10",)


def test_one_cidr_is_written_as_text_and_two_as_a_list() -> None:
    said = node_file.parse(COMMENTED)
    wanted = replace(said, subnets=DUAL_STACK.subnets, networks=DUAL_STACK.networks)
    text = node_file.merged(COMMENTED, wanted)
    assert 'subnet = ["10.244.0.0/24", "fd00:244::/64"]   # given by the network team\n' in text
    assert node_file.parse(text) == wanted
    assert 'subnet = "10.244.0.0/24"   # given by the network team\n' in node_file.merged(text, said)
    listed = COMMENTED.replace('"10.244.0.0/24"  ', '["10.244.0.0/24"]')
    assert node_file.parse(listed) == said
    assert '["10.244.0.0/24"]' in node_file.merged(listed, replace(said, mtu=9000))


def test_record_of_an_older_release_is_read() -> None:
    older = {
        "subnet": "10.244.0.0/24", "network": "10.244.0.0/20", "name": "mynet", "bridge": "cni0", "uplink": "",
        "mtu": 0, "nat": True, "backend": "nft", "external": "",
        "peers": [{"pod_cidr": "10.244.1.0/24", "via": "10.0.10.51", "dev": ""}],
    }  # fmt: skip
    assert from_data(older) == WALK_THROUGH
    assert older.items() <= as_data(WALK_THROUGH).items()
    assert from_data({**older, "flow_label": 7}) == WALK_THROUGH  # the key is from a newer release


ADDRESS = st.integers(1, 254).map(lambda last: f"10.0.10.{last}")
PEERS = st.lists(st.integers(1, 15), unique=True, max_size=5).flatmap(
    lambda thirds: st.tuples(
        *(st.builds(Peer, st.just(f"10.244.{third}.0/24"), ADDRESS, st.sampled_from(["", "eth1"])) for third in thirds)
    )
)
SPECS = st.builds(
    NodeSpec,
    st.sampled_from([("10.244.0.0/24",), ("fd00:244::/64",), DUAL_STACK.subnets]),
    st.sampled_from([("10.244.0.0/20",), ("fd00:244::/48",), DUAL_STACK.networks]),
    st.sampled_from(["mynet", "a.b-c_d"]),
    st.sampled_from(["cni0", "br-pods"]),
    st.sampled_from(["", "eth0"]),
    st.sampled_from([0, 1400]),
    st.booleans(),
    st.sampled_from(["nft", "iptables"]),
    PEERS,
    st.sampled_from([(), ("192.0.2.10",), ("192.0.2.10", "2001:db8::10")]),
    st.sampled_from(["", "debug"]),
    st.sampled_from(["", "/var/log/pods.log"]),
    st.sampled_from(["", "0.1.0", "0.1.0+1a2b3c4d"]),
    st.booleans(),
)


@given(SPECS, SPECS)
def test_every_spec_is_read_back_from_any_former_file(first: NodeSpec, second: NodeSpec) -> None:
    text = node_file.merged(node_file.merged("", first), second)
    assert node_file.parse(text) == second
    assert from_data(as_data(second)) == second


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("subnet = [", "node.toml: "),
        ('subent = "10.244.0.0/24"', "unknown key 'subent'; did you mean 'subnet'"),
        ('network = "10.244.0.0/20"', "'subnet' is missing"),
        ("subnet = 10", "subnet = 10 has to be text in quotes"),
        ('subnet = "10.244.0.0/24"\nnetwork = "10.244.0.0/20"\nnat = "yes"', "nat = 'yes' has to be true or false"),
        ('subnet = "10.244.0.0/24"\nnetwork = "10.244.0.0/20"\nmtu = true', "mtu = True has to be a whole number"),
        ('subnet = "10.244.0.0/24"\nnetwork = "10.244.0.0/20"\npeers = "x"', "has to be written as [[peers]] tables"),
        ('subnet = "10.244.0.0/24"\nnetwork = "10.244.0.0/20"\n[[peers]]\nvia = "10.0.10.51"', "has no 'pod_cidr'"),
        (
            'subnet = "10.244.0.0/24"\nnetwork = "10.244.0.0/20"\n[[peers]]\npod_cird = "10.244.1.0/24"',
            "unknown key 'pod_cird'; did you mean 'pod_cidr'",
        ),
        ('subnet = "10.244.0.1/24"\nnetwork = "10.244.0.0/20"', "has host bits set"),
        ('plugin = "x"\nsubnet = "10.244.0.0/24"\nnetwork = "10.244.0.0/20"', "written as a [plugin] table"),
        (
            'subnet = "10.244.0.0/24"\nnetwork = "10.244.0.0/20"\n[plugin]\nlog_levl = "off"',
            "did you mean 'log_level'",
        ),
        ('subnet = ["10.244.0.0/24", 6]\nnetwork = "10.244.0.0/20"', "an entry of subnet = 6 has to be text in quotes"),
    ],
)
def test_wrong_file_is_refused_by_name(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "node.toml"
    path.write_text(text)
    with pytest.raises(UsageProblem) as refused:
        node_file.load(str(path))
    assert said in refused.value.message
    assert refused.value.message.startswith(str(path))


def test_folder_in_place_of_the_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageProblem, match=f"{tmp_path} is a folder"):
        node_file.load(str(tmp_path))


def test_missing_file_gives_no_spec(tmp_path: Path) -> None:
    assert node_file.load(str(tmp_path / "node.toml")) is None


def test_shipped_example_is_the_walk_through() -> None:
    import importlib.resources

    text = (importlib.resources.files("cnictl_conf") / "node.toml").read_text()
    assert addressing.check(node_file.parse(text)) == WALK_THROUGH


def test_peers_of_one_command_line_are_read_in_either_form() -> None:
    plain, pinned = Peer("10.244.1.0/24", "10.0.10.51"), Peer("10.244.1.0/24", "10.0.10.51", "eth1")
    assert peers.parse_peers(["10.244.1.0/24", "10.0.10.51"]) == (plain,)
    assert peers.parse_peers(["10.244.1.0/24=10.0.10.51"]) == (plain,)
    assert peers.parse_peers(["10.244.1.0/24", "10.0.10.51%eth1"]) == (pinned,)
    assert peers.parse_peers(["10.244.1.0/24=10.0.10.51"], "eth1") == (pinned,)
    six = peers.parse_peers(["10.244.1.0/24=10.0.10.51%eth1", "FD00:244:0:1::/64=fe80::51"], "eth0")
    assert six == (pinned, Peer("fd00:244:0:1::/64", "fe80::51", "eth0"))


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["10.244.1.0/24"], "'10.244.1.0/24' is not CIDR=VIA"),
        (["10.244.1.0/24=10.0.10.51", "10.244.2.0/24", "10.0.10.52"], "'10.244.2.0/24' is not CIDR=VIA"),
        (["10.244.1.0/24=10.0.10.51%"], "names no link after the '%'"),
        (
            ["10.244.1.0/24=10.0.10.51", "10.244.1.0/24=10.0.10.52"],
            "10.244.1.0/24=10.0.10.51 and 10.244.1.0/24=10.0.10.52",
        ),
        (["10.244.1.0/24=10.0.10.51", "10.244.1.0/24=10.0.10.51"], "two peers have the pod CIDR 10.244.1.0/24"),
        (
            ["10.244.0.0/23=10.0.10.51", "10.244.1.0/24=10.0.10.52"],
            "overlap: 10.244.0.0/23=10.0.10.51 and 10.244.1.0/24",
        ),
        (["fd00:244:0:1::/64=fe80::51"], "link-local"),
    ],
)
def test_invalid_peers_are_named(words: list[str], said: str) -> None:
    with pytest.raises(UsageProblem) as refused:
        peers.parse_peers(words)
    assert said in refused.value.message


def test_link_option_is_refused_if_every_peer_names_its_own() -> None:
    with pytest.raises(UsageProblem, match="--dev eth0 is for peers without a link"):
        peers.parse_peers(["10.244.1.0/24=10.0.10.51%eth1"], "eth0")
