"""An edit of node.toml changes only its own keys; all other bytes, comments and spellings stay."""

import difflib
from dataclasses import replace

import pytest

from cnictl.node.spec.addressing import check
from cnictl.node.spec.node_file import merged, parse
from cnictl.node.spec.node_spec import NodeSpec, Peer

COMMENTED = """\
# rack 7
subnet   = "10.244.0.0/24"   # given by the network team
network  = '10.244.0.0/20'
nat = true # asked for in ticket 4711

# about the plugin
[plugin]
log_level = "debug"  # noisy

# node 2
[[peers]]
pod_cidr = "10.244.1.0/24"  # two
via      = "10.0.10.51"
# the rack of node 2 moves in May

# node 3
[[peers]]
pod_cidr = "10.244.2.0/24"
via = "10.0.10.52"

# the end
"""
SPEC = check(parse(COMMENTED))
MORE = Peer("10.244.3.0/24", "10.0.10.53", "eth0")


def changed_lines(before: str, after: str) -> tuple[list[str], list[str]]:
    """Return the lines that were removed and those that were added, without blank lines."""
    lines = list(difflib.ndiff(before.splitlines(), after.splitlines()))
    return tuple([line[2:] for line in lines if line.startswith(sign) and line[2:].strip()] for sign in "-+")  # type: ignore[return-value]


@pytest.mark.parametrize(
    ("wanted", "gone", "come"),
    [
        (replace(SPEC, nat=False), ["nat = true # asked for in ticket 4711"],
         ["nat = false # asked for in ticket 4711"]),
        (replace(SPEC, mtu=1400), [], ["mtu = 1400"]),
        (
            replace(SPEC, peers=SPEC.peers[1:]),
            ["# node 2", "[[peers]]", 'pod_cidr = "10.244.1.0/24"  # two', 'via      = "10.0.10.51"',
             "# the rack of node 2 moves in May"],
            [],
        ),
        (
            replace(SPEC, peers=SPEC.peers[:1]),
            ["# node 3", "[[peers]]", 'pod_cidr = "10.244.2.0/24"', 'via = "10.0.10.52"'],
            [],
        ),
        (
            replace(SPEC, peers=(*SPEC.peers, MORE)),
            [],
            ["[[peers]]", 'pod_cidr = "10.244.3.0/24"', 'via = "10.0.10.53"', 'dev = "eth0"'],
        ),
        (
            replace(SPEC, peers=(replace(SPEC.peers[0], via="10.0.10.99"), SPEC.peers[1])),
            ['via      = "10.0.10.51"'],
            ['via      = "10.0.10.99"'],
        ),
        (
            replace(SPEC, log_level="info", log_file="/var/log/x"),
            ['log_level = "debug"  # noisy'],
            ['log_level = "info"  # noisy', 'log_file = "/var/log/x"'],
        ),
    ],
    ids=["nat", "mtu", "first peer", "last peer", "new peer", "moved peer", "plugin"],
)  # fmt: skip
@pytest.mark.parametrize("newline", ["\n", "\r\n"])
def test_only_the_affected_lines_change(wanted: NodeSpec, gone: list[str], come: list[str], newline: str) -> None:
    text = COMMENTED.replace("\n", newline)
    after = merged(text, wanted)
    assert check(parse(after)) == wanted
    assert changed_lines(text, after) == (gone, come)
    assert after.count("\n") == after.count(newline)


def test_peer_that_comes_back_takes_its_place_in_the_order() -> None:
    without = merged(COMMENTED, replace(SPEC, peers=SPEC.peers[1:]))
    again = merged(without, SPEC)
    assert check(parse(again)) == SPEC
    assert '# node 3\n[[peers]]\npod_cidr = "10.244.2.0/24"' in again and "# the end" in again


INLINE = """\
peers = [ # all of them
  { pod_cidr = "10.244.1.0/24", via = "10.0.10.51" }, # two
  { pod_cidr = "10.244.2.0/24", via = "10.0.10.52" },
]
subnet = "10.244.0.0/24"
network = "10.244.0.0/20"
plugin.log_level = "debug"
"""


def test_peers_in_one_array_and_dotted_keys_stay_in_that_form() -> None:
    spec = check(parse(INLINE))
    wanted = replace(spec, peers=(*spec.peers[:1], MORE), log_level="info", nat=False)
    after = merged(INLINE, wanted)
    assert check(parse(after)) == wanted
    for kept in (
        "peers = [ # all of them",
        '  { pod_cidr = "10.244.1.0/24", via = "10.0.10.51" }, # two',
        "plugin.log",
    ):
        assert kept in after
    assert "[[peers]]" not in after


OTHER_SPELLING = """\
subnet = ["10.244.0.0/24", "fd00:244:0:0::/64"]
network = ["10.244.0.0/20", "fd00:244::0/48"]

[[peers]]
pod_cidr = "fd00:244:0:1:0::/64" # six
via = "fd00:10:0::51"
"""


def test_other_spelling_of_an_address_is_not_a_difference() -> None:
    spec = check(parse(OTHER_SPELLING))
    assert merged(OTHER_SPELLING, spec) == OTHER_SPELLING
    assert changed_lines(OTHER_SPELLING, merged(OTHER_SPELLING, replace(spec, nat=False))) == ([], ["nat = false"])


def test_text_that_looks_like_a_table_is_not_a_peer() -> None:
    odd = COMMENTED.replace("nat = true", 'external = """1.1.1.1"""\nnat = true')
    odd = odd.replace('log_level = "debug"  # noisy', 'log_level = "debug"\nlog_file = """/var/log/a\n[[peers]]\n"""')
    spec = parse(odd)
    wanted = replace(spec, peers=(*spec.peers, MORE))
    assert parse(merged(odd, wanted)) == wanted
