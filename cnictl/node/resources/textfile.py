"""Keep text files: files that only cnictl writes, such as the sysctl drop-in, and the node file, which people edit."""

import os
from dataclasses import fields, replace
from typing import Any

from cnictl.core.errors import UsageProblem
from cnictl.core.paths import NODE_FILE
from cnictl.node import manual_commands
from cnictl.node.plugin import files
from cnictl.node.resources.link_ipv6 import accepting
from cnictl.node.spec import addressing
from cnictl.node.spec.node_file import is_operators, merged, parse, text_of_file, write_text
from cnictl.node.spec.node_spec import NodeSpec, is_ipv6
from cnictl.node.spine import Change, State
from cnictl.node.state import folders, original_state

_OURS = "Written by cnictl"
"""The text at the head of each of our files."""

SYSCTL_FILE = "/etc/sysctl.d/99-cnictl.conf"
_SYSCTL_HEADER = """\
# Written by cnictl: packets from and to pods pass through this host. Removed by `cnictl reset-node`.
"""


class NodeFile:
    """/etc/cnictl/node.toml itself. It comes first in every plan, so that a failed run restores the old file."""

    id = f"file{NODE_FILE}"

    def observe(self) -> State | None:
        """Return its text; None if it is empty or missing."""
        text = text_of_file()
        return {"text": text} if text else None

    def desired(self, spec: NodeSpec) -> State | None:
        """Return the present text with the smallest change that makes it describe `spec`."""
        return {"text": merged(text_of_file(), spec)}

    def state_after_reset(self) -> State | None:
        """Return what a reset leaves: an operator's own file behind a symbolic link, unchanged; else None."""
        return self.observe() if is_operators() else None

    def revert(self, now: State, before: State | None, after: State | None) -> tuple[State | None, list[str]]:
        """Revert the values, not the text, so that an operator's later comments and keys stay."""
        texts = [now["text"], *(state["text"] if state else "" for state in (before, after))]
        try:
            present, old, new = (parse(text) if text else None for text in texts)
            if present == new:
                return (before if old is None else {"text": merged(now["text"], old)}), []
            if present is None or old is None or new is None:
                return now, ["it has been changed since the run"]
            target, changed = _spec_without(present, old, new)
            return {"text": merged(now["text"], addressing.check(target))}, changed
        except UsageProblem:
            return now, ["it has been changed since the run"]

    def describe(self, before: State | None, after: State | None) -> tuple[str, str]:
        """Return the summary, and the manual command that writes or patches the file."""
        return _describe(NODE_FILE, before, after)

    def carry_out(self, change: Change) -> None:
        """Write or remove it."""
        write_text(change.after["text"] if change.after else "")


class TextFile:
    """A file that only cnictl writes. A reset restores an original file of that name.

    A subclass's `wanted` gives the text. A file that an operator masked with a link to /dev/null stays masked.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        self.id = f"file{path}"

    def observe(self) -> State | None:
        """Return its text; None if it is missing or masked."""
        if files.is_masked(self.path):
            return None
        try:
            return {"text": files.read(self.path)}
        except FileNotFoundError:
            return None

    def desired(self, spec: NodeSpec) -> State | None:
        """Return the wanted text; the present text if it can't be written, None if it is masked."""
        if files.is_masked(self.path):
            return None
        return self.observe() if self.unwritable_paths(spec) else self.wanted(spec)

    def unwritable_paths(self, spec: NodeSpec) -> list[str]:
        """Return its path if it differs from the wanted text but can't be written."""
        if files.is_masked(self.path) or files.can_write(self.path):
            return []
        return [self.path] if self.wanted(spec) != self.observe() else []

    def wanted(self, spec: NodeSpec) -> State | None:
        """Return the wanted text."""
        raise NotImplementedError

    def remember(self) -> None:
        """Record the text of a file that had this name before cnictl."""
        original_state.remember(self.id, {"state": self.observe()})

    def state_after_reset(self) -> State | None:
        """Return the original file; if our records are lost, the present file unless it has our first line."""
        remembered = original_state.recall(self.id)
        if remembered:
            return remembered["state"]  # type: ignore[no-any-return]
        now = self.observe()
        return now if now is not None and _OURS not in now["text"] else None

    def is_remembered(self) -> bool:
        """Return whether the original content is known."""
        return original_state.recall(self.id) is not None

    def describe(self, before: State | None, after: State | None) -> tuple[str, str]:
        """Return the summary, and the manual command that writes or patches the file."""
        return _describe(self.path, before, after)

    def carry_out(self, change: Change) -> None:
        """Write or remove it."""
        if change.after is None:
            files.remove(self.path)
            folders.unmake(os.path.dirname(self.path))
            return
        folders.make(os.path.dirname(self.path))
        files.write(self.path, change.after["text"], 0o644)


class SysctlFile(TextFile):
    """/etc/sysctl.d/99-cnictl.conf, which turns on forwarding at the next boot."""

    def __init__(self) -> None:
        super().__init__(SYSCTL_FILE)

    def wanted(self, spec: NodeSpec) -> State | None:
        """Return a line for each family of the node, with the lines for router advertisements ahead of IPv6's.

        If an operator has since turned these off on a link, the next write drops that line; a leftover line is not
        drift.
        """
        now = self.observe()
        kept = self._text(spec, every=True)
        return now if now is not None and now["text"] == kept else {"text": self._text(spec, every=False)}

    def _text(self, spec: NodeSpec, every: bool) -> str:
        lines = []
        for subnet in sorted(spec.subnets, key=is_ipv6):
            if is_ipv6(subnet):
                links = [link for link, accepts in sorted(accepting().items()) if accepts or every]
                lines += [f"net/ipv6/conf/{link}/accept_ra = 2\n" for link in links]
            lines.append(f"net.{'ipv6.conf.all.forwarding' if is_ipv6(subnet) else 'ipv4.ip_forward'} = 1\n")
        return _SYSCTL_HEADER + "".join(lines)


def _spec_without(now: NodeSpec, before: NodeSpec, after: NodeSpec) -> tuple[NodeSpec, list[str]]:
    """Return `now` with the changes from `before` to `after` reverted, and the fields that were changed since."""
    values: dict[str, Any] = {}
    changed = []
    for field in fields(NodeSpec):
        old, new, present = (getattr(spec, field.name) for spec in (before, after, now))
        if old == new or present == old:
            continue
        if present == new:
            values[field.name] = old
        elif field.name == "peers":
            kept = [peer for peer in present if peer not in new or peer in old]
            values["peers"] = (*kept, *(peer for peer in old if peer not in new and peer not in kept))
        else:
            changed.append(f"{field.name} has been changed since the run")
    return replace(now, **values), changed


def _describe(path: str, before: State | None, after: State | None) -> tuple[str, str]:
    if after is None:
        return f"remove {path}", manual_commands.remove(path)
    verb = "write" if before is None else "change"
    return f"{verb} {path}", manual_commands.write(path, after["text"], before["text"] if before else None)
