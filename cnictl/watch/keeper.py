"""Run `cnictl watch`: wait for events, compare the node with its plan, and repair differences."""

import contextlib
import os
import select
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from cnictl.core import durable, untrusted_text
from cnictl.core.errors import Problem, UsageProblem
from cnictl.node import spine
from cnictl.node.host import host_links
from cnictl.node.resources.textfile import NodeFile
from cnictl.node.runs import confirm, converge, history
from cnictl.node.spec import node_file
from cnictl.node.spec.node_spec import NodeSpec, Reach
from cnictl.node.spine import Plan, State, Step
from cnictl.node.state import journal, original_state
from cnictl.node.state.journal import Journal
from cnictl.node.state.run_lock import Held, exclusive
from cnictl.watch import causes
from cnictl.watch.causes import Cause
from cnictl.watch.events import Event, Events
from cnictl.watch.follower import Follower
from cnictl.watch.repairs import Repairs

REGULAR = 60.0
"""Seconds between two checks without an event: some changes cause none."""
_GATHER = 0.05
"""Seconds to wait after an event for others that belong to it."""
_SHARE, _MOST = 4, 0.5
"""The pause before a check, as a multiple of the last check's time, and its limit in seconds: about 20% of a CPU."""
_AGAIN = 0.2
"""Seconds from a repair to the check that it lasts."""
_OWN = ("cnictl", "cnictl-bridge")
_NEVER: State = {"": "never wanted"}

Tell = Callable[[str], None]


class Keeper:
    """One run of `cnictl watch`."""

    def __init__(self, tell: Tell) -> None:
        self._tell = tell
        self._repairs = Repairs()
        self._causes: list[Cause] = []
        self._unseen: list[Event] = []
        self._last_check = 0.0
        self._cost = 0.0
        self._retry = REGULAR
        self._follower: Follower | None = None
        self._checked = time.monotonic()
        self._source_changed = False
        """Whether the source's peers changed since the last check. A change that follows from this is not a repair."""
        self._wanted: dict[str, State | None] = {}
        """The state that the last check wanted for each resource."""

    def run(self) -> None:
        """Watch until SIGTERM or SIGINT. SIGHUP resumes the repairs that were given up. Raises OSError, Problem."""
        events = Events()
        with _signals() as (wakeup, ended):
            try:
                self._follow_source()
                self._check()
                notify("READY=1")
                self._tell("watching: links, addresses, routes, forwarding, and nftables' rules")
                while not ended():
                    self._wait_and_check(events, wakeup)
            finally:
                events.close()
                if self._follower is not None:
                    self._follower.close()

    def _follow_source(self) -> None:
        """Start or stop following a source, according to the applied node file."""
        spec = _spec()
        applied = original_state.specs()[-1:]
        reach = spec.reach if spec is not None and applied and applied[0].reach == spec.reach else Reach()
        if self._follower is not None and self._follower.reach != reach:
            self._follower.close()
            self._follower = None
        if reach.source and self._follower is None:
            self._follower = Follower(_spec, reach, self._tell)
        if self._follower is not None and time.monotonic() - self._checked >= REGULAR:
            self._checked = time.monotonic()
            self._follower.check()

    def _wait_and_check(self, events: Events, wakeup: int) -> None:
        self._follow_source()
        sources = (self._follower,) if self._follower is not None else ()
        patience = 0.0 if self._unseen else max(0.0, self._retry)
        received = self._unseen + events.wait(patience, wakeup, _links(_spec()), sources)
        if self._follower is not None and self._follower.seen():
            self._source_changed = True
        self._unseen = []
        woken = _drain(wakeup)
        if signal.SIGHUP in woken:
            self._repairs.forgive()
        if signal.SIGTERM in woken or signal.SIGINT in woken:
            return
        notify("WATCHDOG=1")
        if received:
            pause = self._last_check + min(_SHARE * self._cost, _MOST) - time.monotonic()
            if select.select([wakeup], [], [], max(_GATHER, pause))[0]:
                self._unseen = received  # handle the signal first
                return
            received += events.wait(0, wakeup, _links(_spec()))
        self._causes = [Cause(event.about, process) for event in received if (process := _culprit(event))]
        if self._check():
            # drop the events of our own repairs; the next check finds what others changed meanwhile
            events.wait(0, wakeup, set())

    def _check(self) -> bool:
        """Check and repair the node once; return whether anything changed."""
        changed = False
        start = time.monotonic()
        self._retry = REGULAR
        try:
            undone = confirm.undo_if_due(wait=0)
            if undone is not None:
                self._tell(f"warning: {undone}")
            self._finish_undo()
            changed = self._repair()
        except Held:
            self._retry = 0.2  # another command is changing the node: check its result soon
        except (Problem, OSError) as error:
            self._tell(f"error: {error}")
            self._retry = 5.0
        self._last_check = time.monotonic()
        self._cost = self._last_check - start
        return changed

    def _finish_undo(self) -> None:
        """Finish an interrupted undo; otherwise watch would restore what it has already removed."""
        run = journal.last()
        if run is not None and run.undoes and not run.end:
            with exclusive(wait=0):
                for line in history.resume()[0]:
                    self._tell(f"warning: {line}")

    def _repair(self) -> bool:
        spec = _spec()
        changed = False
        if spec is None or not original_state.specs() or original_state.specs()[-1] != spec:
            return False  # not a node, or the node file was edited, and only the operator may apply it
        wrong = converge.plan(spec).whole
        now = time.monotonic()
        self._repairs.seen({change.resource for change in wrong.changes}, now)
        if self._due(wrong, now).changes:
            with exclusive(wait=0):
                wrong = converge.plan(spec).whole
                todo = self._due(wrong, now)
                if todo.changes:
                    self._carry_out(todo, spec.bridge)
                    changed = True
        self._source_changed = False
        self._wanted = {step.resource.id: _wanted(step) for step in wrong.steps}
        self._repairs.save()
        return changed

    def _follows(self, step: Step) -> bool:
        """Return whether a change follows from a change of the source's peers. Such a change is not a repair."""
        previous = self._wanted.get(step.resource.id, _NEVER)
        return self._source_changed and previous != _wanted(step)

    def _due(self, plan: Plan, now: float) -> Plan:
        """Return the part of a plan that may be repaired now, and schedule the next check for the rest."""
        steps = []
        for step in plan.steps:
            if step.change is None or step.resource.id == NodeFile.id:
                continue  # the node file belongs to the operator, who may be editing it now
            wait = 0.0 if self._follows(step) else self._repairs.due(step.resource.id, now)
            if wait <= 0:
                steps.append(step)
            else:
                self._retry = min(self._retry, wait)
        return Plan(tuple(steps))

    def _carry_out(self, todo: Plan, bridge: str) -> None:
        cause = causes.named([change.resource for change in todo.changes], self._causes, bridge)
        start = time.monotonic()
        failure = ""
        try:
            spine.repair(todo, lambda *_: None, Journal("watch", {"cause": cause}, repairs=True))
        except Problem as problem:
            failure = problem.message
            self._tell(f"error: {failure}")
        took = (time.monotonic() - start) * 1000
        for step in todo.steps:
            change, follows = step.change, self._follows(step)
            if change is None:
                continue
            cause = causes.named([change.resource], self._causes, bridge)
            if not failure and follows:
                self._tell(f"followed the source: {change.summary}, in {took:.0f} ms")
            elif not failure:
                by = f" (changed by {cause})" if cause else ""
                self._tell(f"repaired: {change.summary}{by}, in {took:.0f} ms")
            if not follows and self._repairs.note(change.resource, time.monotonic(), cause):
                whose = f" by {cause}" if cause else ""
                self._tell(
                    f"error: {change.resource} keeps being changed{whose}, so watch no longer repairs it; stop that "
                    "program, then: systemctl reload cnictl-watch (or kill -HUP)"
                )
        self._retry = _AGAIN


def _spec() -> NodeSpec | None:
    try:
        return node_file.load()
    except UsageProblem:
        return None  # an editor may still be writing it; the next check tries again


def _wanted(step: Step) -> State | None:
    """Return the state that a step leads to."""
    return step.change.after if step.change is not None else step.state


def _links(spec: NodeSpec | None) -> set[str]:
    if spec is None:
        return set()
    return {spec.bridge, *host_links.links_to_others(spec)}


def _culprit(event: Event) -> str:
    """Return which process made a change; empty if that is not known or if it was cnictl."""
    if event.pid in (0, os.getpid()):
        return ""
    name = event.process
    try:
        name = name or durable.contents(f"/proc/{event.pid}/comm").decode("utf-8", "replace").strip()
    except OSError:
        return ""  # it has ended, or the number is not a process id
    return "" if name in _OWN else f"{name} (process {event.pid})"


@contextmanager
def _signals() -> Iterator[tuple[int, Callable[[], bool]]]:
    """Yield a descriptor that signals make readable, and a function that returns whether to end."""
    reader, writer = socket.socketpair()
    reader.setblocking(False)
    writer.setblocking(False)
    over: list[int] = []
    handled = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
    former_handlers = {number: signal.signal(number, lambda got, _: over.append(got)) for number in handled}
    former_wakeup = signal.set_wakeup_fd(writer.fileno())
    try:
        yield reader.fileno(), lambda: signal.SIGTERM in over or signal.SIGINT in over
    finally:
        signal.set_wakeup_fd(former_wakeup)
        for number, handler in former_handlers.items():
            signal.signal(number, handler)
        reader.close()
        writer.close()


def _drain(descriptor: int) -> bytes:
    try:
        return os.read(descriptor, 64)
    except BlockingIOError:
        return b""


def notify(state: str) -> None:
    """Send a state to systemd if it started this process with Type=notify (sd_notify(3))."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if address:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as teller:
            teller.sendto(state.encode(), address.replace("@", "\0", 1) if address[0] == "@" else address)


def to_stderr(message: str) -> None:
    """Print a line on stderr immediately, for systemd's journal."""
    with contextlib.suppress(OSError):  # a full journal must not stop the repairs
        print(untrusted_text.line(message), file=sys.stderr, flush=True)
