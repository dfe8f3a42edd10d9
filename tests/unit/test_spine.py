"""The spine makes changes in order, undoes them if one fails, and records each in the journal."""

import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from cnictl.core.errors import CniError, Problem
from cnictl.node import spine
from cnictl.node.spec.node_spec import NodeSpec
from cnictl.node.spine import Change, State
from cnictl.node.state import journal, run_lock
from cnictl.node.state.journal import Journal

SPEC = NodeSpec(("10.244.0.0/24",), ("10.244.0.0/20",))


class Switch:
    """A resource without a kernel: a value in a shared world, which can be made to fail."""

    def __init__(self, world: dict[str, State], name: str, wanted: State | None) -> None:
        self.id = name
        self._world = world
        self._wanted = wanted
        self.fault: Callable[[Change], None] | None = None

    def observe(self) -> State | None:
        return self._world.get(self.id)

    def desired(self, spec: NodeSpec) -> State | None:  # noqa: ARG002
        return self._wanted

    def describe(self, before: State | None, after: State | None) -> tuple[str, str]:  # noqa: ARG002
        return f"set {self.id}", f"switch {self.id}"

    def carry_out(self, change: Change) -> None:
        if self.fault is not None:
            self.fault(change)
        if change.after is None:
            self._world.pop(self.id)
        else:
            self._world[self.id] = change.after


class Adopted(Switch):
    """A switch that was on the host before."""

    def state_after_reset(self) -> State | None:
        return {"was": "there"}


@pytest.fixture(autouse=True)
def journal_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(journal, "FOLDER", str(tmp_path / "journal"))
    return tmp_path / "journal"


def entries(folder: Path) -> list[dict[str, object]]:
    """Return the entries of the only journal."""
    (file,) = folder.iterdir()
    return [json.loads(line) for line in file.read_text().splitlines()]


def three(world: dict[str, State]) -> list[Switch]:
    return [Switch(world, name, {"on": name}) for name in ("first", "second", "third")]


def test_plan_changes_nothing_and_lists_unchanged_resources() -> None:
    world: dict[str, State] = {"second": {"on": "second"}}
    plan = spine.plan(three(world), SPEC)
    assert [step.change is None for step in plan.steps] == [False, True, False]
    assert [change.resource for change in plan.changes] == ["first", "third"]
    assert world == {"second": {"on": "second"}}


def test_resource_neither_present_nor_wanted_is_not_in_the_plan() -> None:
    assert spine.plan([Switch({}, "nothing", None)], SPEC).steps == ()


def test_apply_works_in_order_and_a_second_plan_is_empty(journal_folder: Path) -> None:
    world: dict[str, State] = {}
    said: list[tuple[str, str]] = []
    run = Journal("test")
    spine.apply(spine.plan(three(world), SPEC), lambda change, outcome: said.append((change.resource, outcome)), run)
    run.end("done")
    assert said == [("first", "changed"), ("second", "changed"), ("third", "changed")]
    assert spine.plan(three(world), SPEC).changes == ()
    lines = entries(journal_folder)
    assert [line.get("resource") for line in lines[1:-1]] == ["first", "second", "third"]
    assert lines[-1] == {"end": "done"}
    assert journal.unfinished() == []


@pytest.mark.parametrize("fault", [Problem("broken", "fix it"), OSError(28, "No space left"), CniError(103, "broken")])
def test_failure_undoes_earlier_steps_in_reverse_order(fault: Exception, journal_folder: Path) -> None:
    world: dict[str, State] = {"second": {"on": "before"}}
    resources = three(world)

    def fail(_change: Change) -> None:
        raise fault

    resources[2].fault = fail
    said: list[tuple[str, str]] = []
    with pytest.raises(Problem, match="set third: "):
        spine.apply(
            spine.plan(resources, SPEC),
            lambda change, outcome: said.append((change.resource, outcome)),
            Journal("test"),
        )
    assert world == {"second": {"on": "before"}}
    assert said[-3:] == [("third", "failed"), ("second", "undone"), ("first", "undone")]
    assert entries(journal_folder)[-1] == {"end": "undone"}


def test_failed_step_is_undone_too() -> None:
    world: dict[str, State] = {}
    resource = Switch(world, "torn", {"on": "whole"})

    def tear(change: Change) -> None:
        if change.after is not None:
            world["torn"] = {"on": "half"}
            raise Problem("torn")

    resource.fault = tear
    with pytest.raises(Problem):
        spine.apply(spine.plan([resource], SPEC), lambda *_: None, Journal("test"))
    assert world == {}


def test_interruption_undoes_earlier_steps_too() -> None:
    world: dict[str, State] = {}
    resources = three(world)

    def interrupt(_change: Change) -> None:
        raise KeyboardInterrupt

    resources[1].fault = interrupt
    with pytest.raises(KeyboardInterrupt):
        spine.apply(spine.plan(resources, SPEC), lambda *_: None, Journal("test"))
    assert world == {}


def test_change_that_another_program_reverts_immediately_is_a_failure() -> None:
    world: dict[str, State] = {}
    first, second, _ = three(world)

    def meddle(_change: Change) -> None:
        world["first"] = {"on": "something else"}

    second.fault = meddle
    with pytest.raises(Problem, match="done, but first is now"):
        spine.apply(spine.plan([first, second], SPEC), lambda *_: None, Journal("test"))


def test_failed_undo_is_reported_and_the_rest_is_undone(journal_folder: Path) -> None:
    world: dict[str, State] = {}
    first, second, third = three(world)

    def fail_back(change: Change) -> None:
        if change.after is None:
            raise Problem("stuck")

    def fail(_change: Change) -> None:
        raise Problem("broken")

    second.fault, third.fault = fail_back, fail
    with pytest.raises(Problem, match="set third: broken; undoing failed too: set second: stuck"):
        spine.apply(spine.plan([first, second, third], SPEC), lambda *_: None, Journal("test"))
    assert world == {"second": {"on": "second"}}
    assert entries(journal_folder)[-1] == {"end": "failed"}


def test_removal_keeps_what_existed_before() -> None:
    world: dict[str, State] = {"ours": {"on": "ours"}, "adopted": {"on": "changed"}}
    resources = [Adopted(world, "adopted", None), Switch(world, "ours", None)]
    spine.apply(spine.plan_removal(resources), lambda *_: None, Journal("test"))
    assert world == {"adopted": {"was": "there"}}


def test_journal_of_an_interrupted_run_names_what_it_had_begun() -> None:
    run = Journal("init-node")
    run.begin("bridge/cni0", None, {"up": True}, "ip link add cni0 type bridge")
    (cut_off,) = journal.unfinished()
    assert [entry.resource for entry in cut_off.entries] == ["bridge/cni0"]
    assert cut_off.half_made == {"bridge/cni0"}


def test_journals_do_not_pile_up(journal_folder: Path) -> None:
    journal_folder.mkdir()
    for number in range(1, journal.KEPT + 20):
        (journal_folder / f"{number:06}.jsonl").write_text("{}\n")
    run = Journal("apply")
    run.begin("bridge/cni0", None, None, "")
    assert len(list(journal_folder.iterdir())) == journal.KEPT


def test_two_runs_do_not_interleave(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_lock, "RUN_LOCK", str(tmp_path / "run.lock"))
    told: list[str] = []
    with (
        spine.exclusive(),
        pytest.raises(Problem, match=r"another cnictl command is changing this node \(waited 0\.1 s\)"),
        spine.exclusive(wait=0.1, on_wait=told.append),
    ):
        raise AssertionError("two commands hold the run lock at once")
    assert len(told) == 1 and f"process {os.getpid()}" in told[0]
    with spine.exclusive(wait=0.1):
        pass


def test_repair_continues_after_failures_and_names_them_all(journal_folder: Path) -> None:
    world: dict[str, State] = {}
    resources = three(world)

    def fail(_change: Change) -> None:
        raise Problem("broken")

    resources[0].fault = resources[1].fault = fail
    said: list[tuple[str, str]] = []
    with pytest.raises(Problem, match="set first: broken; set second: broken"):
        spine.repair(
            spine.plan(resources, SPEC),
            lambda change, outcome: said.append((change.resource, outcome)),
            Journal("test"),
        )
    assert world == {"third": {"on": "third"}}
    assert said == [("first", "failed"), ("second", "failed"), ("third", "changed")]
    assert entries(journal_folder)[-1] == {"end": "failed"}


def test_interruption_within_a_step_undoes_that_step_too() -> None:
    world: dict[str, State] = {}
    resource = Switch(world, "torn", {"on": "whole"})

    def interrupt(change: Change) -> None:
        if change.after is not None:
            world["torn"] = {"on": "half"}
            raise KeyboardInterrupt

    resource.fault = interrupt
    with pytest.raises(KeyboardInterrupt):
        spine.apply(spine.plan([resource], SPEC), lambda *_: None, Journal("test"))
    assert world == {}


class Group:
    """Carries out switches together and records each call."""

    def __init__(self, world: dict[str, State]) -> None:
        self.world = world
        self.calls: list[list[str]] = []
        self.refused: set[str] = set()

    def carry_out(self, changes: Sequence[Change]) -> dict[str, Problem]:
        self.calls.append([change.resource for change in changes])
        for change in changes:
            if change.resource in self.refused:
                continue
            if change.after is None:
                self.world.pop(change.resource)
            else:
                self.world[change.resource] = change.after
        return {change.resource: Problem("refused") for change in changes if change.resource in self.refused}


class Grouped(Switch):
    """A switch that is carried out together with others."""

    def __init__(self, group: Group, name: str, wanted: State | None) -> None:
        super().__init__(group.world, name, wanted)
        self.batch = group


def test_batch_of_resources_is_applied_and_undone_together(journal_folder: Path) -> None:
    world: dict[str, State] = {}
    group = Group(world)
    lone = Switch(world, "lone", {"on": 1})
    resources = [Grouped(group, "a", {"on": 1}), Grouped(group, "b", {"on": 1}), lone, Grouped(group, "c", {"on": 1})]
    record = Journal("test")
    done = spine.apply(spine.plan(resources, SPEC), lambda *_: None, record)
    assert group.calls == [["a", "b"], ["c"]]
    assert list(world) == ["a", "b", "lone", "c"]
    assert [entry["resource"] for entry in entries(journal_folder) if "resource" in entry] == ["a", "b", "lone", "c"]
    assert spine.undo(done, lambda *_: None, record) == []
    assert group.calls[2:] == [["c"], ["b", "a"]]
    assert world == {}


def test_one_refused_change_of_a_batch_undoes_the_whole_run(journal_folder: Path) -> None:
    world: dict[str, State] = {}
    group = Group(world)
    group.refused = {"b"}
    resources = [Grouped(group, name, {"on": 1}) for name in "abc"]
    outcomes: list[tuple[str, str]] = []
    with pytest.raises(Problem, match="set b: refused"):
        spine.apply(
            spine.plan(resources, SPEC),
            lambda change, outcome: outcomes.append((change.resource, outcome)),
            Journal("test"),
        )
    assert world == {}
    assert outcomes == [
        ("a", "changed"), ("b", "failed"), ("c", "changed"), ("c", "undone"), ("a", "undone"),
    ]  # fmt: skip
    assert {"failed": "b"} in entries(journal_folder)


def test_repair_of_a_batch_keeps_the_changes_that_succeed() -> None:
    world: dict[str, State] = {}
    group = Group(world)
    group.refused = {"b"}
    with pytest.raises(Problem, match="set b: refused"):
        spine.repair(
            spine.plan([Grouped(group, name, {"on": 1}) for name in "abc"], SPEC), lambda *_: None, Journal("test")
        )
    assert list(world) == ["a", "c"]
