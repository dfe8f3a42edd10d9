"""Files of text: one that cnictl writes whole, as the sysctl drop-in is, and the node file, which people edit too."""

import difflib
import os
from dataclasses import fields, replace
from typing import Any

from cnictl.core import durable
from cnictl.core.errors import UsageProblem
from cnictl.core.paths import NODE_FILE
from cnictl.node.plugin import files
from cnictl.node.resources.link_ipv6 import accepting
from cnictl.node.spec import addressing
from cnictl.node.spec.node_file import is_operators, merged, parse, text_of_file, write_text
from cnictl.node.spec.node_spec import NodeSpec, is_ipv6
from cnictl.node.spine import Change, State
from cnictl.node.state import folders, original_state

_OURS = "Written by cnictl"
"""What each file of ours says at its head."""

SYSCTL_FILE = "/etc/sysctl.d/99-cnictl.conf"
_SYSCTL_HEADER = """\
# Written by cnictl: packets from and to pods pass through this host. Removed by `cnictl reset-node`.
"""


class NodeFile:
    """/etc/cnictl/node.toml itself: first in every plan, so that a failure half way puts the old one back."""

    id = f"file{NODE_FILE}"

    def observe(self) -> State | None:
        """Its text."""
        text = text_of_file()
        return {"text": text} if text else None

    def desired(self, spec: NodeSpec) -> State | None:
        """The text it has, changed as little as makes it say `spec`."""
        return {"text": merged(text_of_file(), spec)}

    def former(self) -> State | None:
        """What a reset leaves: an operator's own file that a link leads to, as it is; else nothing."""
        return self.observe() if is_operators() else None

    def take_back(self, now: State, before: State | None, after: State | None) -> tuple[State | None, list[str]]:
        """By what the texts say, so that comments and keys that an operator put in since stay."""
        texts = [now["text"], *(state["text"] if state else "" for state in (before, after))]
        try:
            found, old, new = (parse(text) if text else None for text in texts)
            if found == new:
                return (before if old is None else {"text": merged(now["text"], old)}), []
            if found is None or old is None or new is None:
                return now, ["it was changed since"]
            target, changed = _spec_without(found, old, new)
            return {"text": merged(now["text"], addressing.check(target))}, changed
        except UsageProblem:
            return now, ["it was changed since"]

    def describe(self, before: State | None, after: State | None) -> tuple[str, str]:
        """The summary and the file as a shell would write it."""
        return _describe(NODE_FILE, before, after)

    def carry_out(self, change: Change) -> None:
        """Write or remove it."""
        write_text(change.after["text"] if change.after else "")


class TextFile:
    """A file that is cnictl's from end to end; one that stood under its name before comes back at a reset.

    What it should say is a subclass's `wanted`. One that an operator has masked, by a link to /dev/null, stays so.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        self.id = f"file{path}"

    def observe(self) -> State | None:
        """Its text; None also if it is masked."""
        if files.is_masked(self.path):
            return None
        try:
            return {"text": durable.contents(self.path).decode("utf-8", "surrogateescape")}
        except FileNotFoundError:
            return None

    def desired(self, spec: NodeSpec) -> State | None:
        """What it should say, unless it is masked; what it says where it can't be written."""
        if files.is_masked(self.path):
            return None
        return self.observe() if self.skipped(spec) else self.wanted(spec)

    def skipped(self, spec: NodeSpec) -> list[str]:
        """Its path, if it should say something else and can't be written."""
        if files.is_masked(self.path) or files.can_write(self.path):
            return []
        return [self.path] if self.wanted(spec) != self.observe() else []

    def wanted(self, spec: NodeSpec) -> State | None:
        """What it should say."""
        raise NotImplementedError

    def remember(self) -> None:
        """Keep the text of a file that stood under this name before cnictl."""
        original_state.remember(self.id, {"state": self.observe()})

    def former(self) -> State | None:
        """That file, if there was one; with our notes lost, any that does not say that it is ours."""
        remembered = original_state.recall(self.id)
        if remembered:
            return remembered["state"]  # type: ignore[no-any-return]
        found = self.observe()
        return found if found is not None and _OURS not in found["text"] else None

    def describe(self, before: State | None, after: State | None) -> tuple[str, str]:
        """The summary and the file as a shell would write it."""
        return _describe(self.path, before, after)

    def carry_out(self, change: Change) -> None:
        """Write or remove it."""
        if change.after is None:
            files.remove(self.path)
            folders.unmake(os.path.dirname(self.path))
            return
        folders.make(os.path.dirname(self.path))
        files.write(self.path, change.after["text"].encode("utf-8", "surrogateescape"), 0o644)


class SysctlFile(TextFile):
    """/etc/sysctl.d/99-cnictl.conf, which keeps forwarding on at the next boot."""

    def __init__(self) -> None:
        super().__init__(SYSCTL_FILE)

    def wanted(self, spec: NodeSpec) -> State | None:
        """A line for each family of the node's; ahead of IPv6's, those that keep router advertisements accepted.

        Of a link on which an operator has turned them off since, the line goes when the file is next written: by
        itself it is no drift.
        """
        found = self.observe()
        kept = self._text(spec, every=True)
        return found if found is not None and found["text"] == kept else {"text": self._text(spec, every=False)}

    def _text(self, spec: NodeSpec, every: bool) -> str:
        lines = []
        for subnet in sorted(spec.subnets, key=is_ipv6):
            if is_ipv6(subnet):
                links = [link for link, accepts in sorted(accepting().items()) if accepts or every]
                lines += [f"net/ipv6/conf/{link}/accept_ra = 2\n" for link in links]
            lines.append(f"net.{'ipv6.conf.all.forwarding' if is_ipv6(subnet) else 'ipv4.ip_forward'} = 1\n")
        return _SYSCTL_HEADER + "".join(lines)


def _spec_without(now: NodeSpec, before: NodeSpec, after: NodeSpec) -> tuple[NodeSpec, list[str]]:
    """`now` with what led from `before` to `after` taken back, and the fields that something else was done to."""
    values: dict[str, Any] = {}
    changed = []
    for field in fields(NodeSpec):
        old, new, found = (getattr(one, field.name) for one in (before, after, now))
        if old == new or found == old:
            continue
        if found == new:
            values[field.name] = old
        elif field.name == "peers":
            kept = [peer for peer in found if peer not in new or peer in old]
            values["peers"] = (*kept, *(peer for peer in old if peer not in new and peer not in kept))
        else:
            changed.append(f"{field.name} was changed since")
    return replace(now, **values), changed


def _describe(path: str, before: State | None, after: State | None) -> tuple[str, str]:
    if after is None:
        return f"remove {path}", f"rm {os.path.realpath(path)}"
    text = after["text"]
    if before is None:
        return f"write {path}", f"cat > {path} <<'EOF'\n{text}EOF"
    difference = difflib.unified_diff(
        before["text"].splitlines(keepends=True), text.splitlines(keepends=True), path, path, n=0
    )
    return f"change {path}", f"patch {path} <<'EOF'\n{''.join(difference)}EOF"
