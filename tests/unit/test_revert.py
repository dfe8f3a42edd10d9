"""An undo restores the former state, or only cnictl's part of it if somebody has changed it since the run."""

from itertools import pairwise
from typing import Any

import pytest

from cnictl.core.errors import UsageProblem
from cnictl.node.resources.bridge_netfilter import BridgeNetfilter
from cnictl.node.resources.textfile import NodeFile
from cnictl.node.runs.revert import add_repairs, reverted, traces
from cnictl.node.spec.addressing import check
from cnictl.node.spec.node_file import merged
from cnictl.node.spec.node_spec import NodeSpec, Peer
from cnictl.node.spine import Change
from cnictl.node.state.journal import Entry, Run, State

SPEC = NodeSpec(("10.244.0.0/24",), ("10.244.0.0/20",))


class Thing:
    """A resource whose own state does not matter."""

    id = "thing"

    def observe(self) -> State | None:
        return None

    def desired(self, spec: NodeSpec) -> State | None:  # noqa: ARG002
        return None

    def describe(self, before: State | None, after: State | None) -> tuple[str, str]:  # noqa: ARG002
        return "", ""

    def carry_out(self, change: Change) -> None:
        """Do nothing."""


class Files(Thing):
    """A resource with several parts."""

    parted = True


def trace_of(*states: State | None, end: str = "done", resource: str = "thing") -> Any:
    entries = [Entry(resource, old, new, "", "") for old, new in pairwise(states)]
    run = Run(1, entries=entries, end=end, half_made=set() if end else {resource})
    (trace,) = traces(run)
    return trace


A, B, C = {"mtu": 1500, "up": True}, {"mtu": 1400, "up": True}, {"mtu": 1300, "up": True}


@pytest.mark.parametrize(
    ("trace", "now", "target", "left"),
    [
        (trace_of(A, B), B, A, False),  # as the run left it
        (trace_of(A, B), A, A, False),  # already reverted
        (trace_of(None, B), B, None, False),  # created by the run
        (trace_of(A, B), C, C, True),  # changed by someone else since
        (trace_of(None, B), C, C, True),
        (trace_of(A, B), None, None, True),  # removed
        (trace_of(A, B), {"mtu": 1400, "up": False}, {"mtu": 1500, "up": False}, False),  # another part of it changed
        (trace_of(A, B, A), B, A, False),  # the run's own revert failed
        (trace_of(A, B, end=""), C, A, False),  # cut off in between: the change is the run's own
    ],
)
def test_a_resource_is_reverted_only_if_unchanged_since_the_run(
    trace: Any, now: State | None, target: State | None, left: bool
) -> None:
    target_state, notes = reverted(Thing(), trace, now)
    assert (target_state, bool(notes)) == (target, left)


@pytest.mark.parametrize(
    ("before", "after", "now", "target", "left"),
    [
        (None, {"addresses": ["ours"]}, {"addresses": ["ours", "theirs"]}, {"addresses": ["theirs"]}, False),
        ({"f": {"a": "1"}}, {"f": {"a": "2"}}, {"f": {"a": "2", "x": "3"}}, {"f": {"a": "1", "x": "3"}}, False),
        (None, {"files": {"a": "1", "b": "1"}}, {"files": {"a": "1", "b": "2"}}, {"files": {"b": "2"}}, True),
        (None, {"files": {"a": "1"}}, {"files": {}}, None, False),
    ],
)  # fmt: skip
def test_resources_that_others_added_or_changed_are_not_reverted(
    before: State | None, after: State, now: State, target: State | None, left: bool
) -> None:
    target_state, notes = reverted(Files(), trace_of(before, after), now)
    assert (target_state, bool(notes)) == (target, left)


def test_node_file_keeps_comments_and_keys_added_since() -> None:
    peer, other = Peer("10.244.1.0/24", "10.0.10.51"), Peer("10.244.2.0/24", "10.0.10.52")
    old = merged("", SPEC)
    new = merged(old, NodeSpec(SPEC.subnets, SPEC.networks, peers=(peer,), nat=False))
    now = "# mine\n" + merged(new, NodeSpec(SPEC.subnets, SPEC.networks, peers=(peer, other), nat=False, mtu=1400))
    target, left = NodeFile().revert({"text": now}, {"text": old}, {"text": new})
    assert target is not None and left == []
    assert target["text"].startswith("# mine\n")
    assert "nat = true" in target["text"] and "mtu = 1400" in target["text"]
    assert "10.244.1.0/24" not in target["text"] and "10.244.2.0/24" in target["text"]


@pytest.mark.parametrize(
    ("subnet", "network", "said"),
    [
        ("::/96", "::/80", "it contains ::1/128, and pods can't have loopback addresses"),
        ("224.0.0.0/3", "224.0.0.0/3", "it contains 224.0.0.0/4, and pods can't have multicast addresses"),
        ("127.1.0.0/16", "127.0.0.0/8", "127.0.0.0/8: pods can't have loopback addresses"),
    ],
)
def test_ranges_that_hold_addresses_no_pod_can_have_are_refused(subnet: str, network: str, said: str) -> None:
    with pytest.raises(UsageProblem, match=said.replace("(", r"\(")):
        check(NodeSpec((subnet,), (network,)))


def test_link_local_address_is_not_external() -> None:
    with pytest.raises(UsageProblem, match="external fe80::1 is link-local"):
        check(NodeSpec(("fd00::/64",), ("fd00::/48",), externals=("fe80::1",)))


ON, OFF = {"nf_call_iptables": 1}, {"nf_call_iptables": 0}


@pytest.mark.parametrize(
    ("before", "after", "now", "target"),
    [
        (ON, None, OFF, ON),  # a bridge that the run was to remove but did not reach
        (None, ON, ON, None),
        (OFF, ON, ON, OFF),
        ({**OFF, "nf_call_ip6tables": 0}, {**ON, "nf_call_ip6tables": 1}, ON, OFF),  # the other spec has no IPv6
    ],
)
def test_bridge_settings_are_reverted_one_by_one(before: State, after: State, now: State, target: State | None) -> None:
    assert BridgeNetfilter(SPEC).revert(now, before, after) == (target, [])


def test_a_bridge_setting_changed_since_stays() -> None:
    target, left = BridgeNetfilter(SPEC).revert({"nf_call_iptables": 1}, OFF, OFF)
    assert target == {"nf_call_iptables": 1} and left == ["nf_call_iptables has been changed since the run"]


@pytest.mark.parametrize(
    ("later", "back"),
    [
        ([("watch", {"mtu": 1500})], True),
        ([("bridge up", {"mtu": 1400}), ("watch", {"mtu": 1500})], False),
    ],
    ids=["repaired", "moved, then repaired"],
)
def test_repairs_since_count_as_the_runs_unless_another_run_changed_the_resource(
    later: list[tuple[str, State]], back: bool
) -> None:
    trace = trace_of({"mtu": 1280}, {"mtu": 9000})
    runs = [
        Run(
            number,
            command,
            entries=[Entry("thing", None, state, "", "", repair=command == "watch")],
        )
        for number, (command, state) in enumerate(later, 2)
    ]
    add_repairs([trace], runs)
    assert reverted(Thing(), trace, {"mtu": 1500})[0] == ({"mtu": 1280} if back else {"mtu": 1500})
