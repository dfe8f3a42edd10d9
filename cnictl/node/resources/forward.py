"""Forwarding of pods' packets, where iptables' FORWARD may drop them: an accept has to stand in the dropping chain.

Docker and others set FORWARD to DROP later in the boot, so the accept is there even where nothing drops yet.
"""

import shlex
from typing import Any

from cnictl.core.errors import Problem
from cnictl.core.process import run
from cnictl.node import chains, firewall
from cnictl.node.firewall import PROGRAMS
from cnictl.node.spec import NodeSpec, is_ipv6
from cnictl.node.spine import Change, State

CHAIN = "CNICTL-FORWARD"
DOCKER_CHAIN = "DOCKER-USER"
"""Docker's own place for others' rules, ahead of its own (docs.docker.com, Packet filtering and firewalls)."""

_UNREADABLE = "unreadable"
_VERDICTS = ("DROP", "REJECT")


class IptablesForward:
    """Our chain of accepts, jumped to from the head of DOCKER-USER or FORWARD, where the family's program is installed.

    Of one address family, by nftables' name: `ip` or `ip6`.
    """

    def __init__(self, family: str = "ip") -> None:
        self._family = family
        self._program = PROGRAMS[family]
        self.id = f"forward/{self._program}"

    def observe(self) -> State | None:
        """The subnet and bridge accepted, and the chain that jumps there; None if no part of it stands."""
        if chains.left("filter", CHAIN, self._family):
            return {_UNREADABLE: f"{CHAIN} stands, but {chains.gone(self._family)}"}
        if not firewall.iptables_works(self._family):
            return None
        return self._read(firewall.iptables_rules("filter", self._family))

    def desired(self, spec: NodeSpec) -> State | None:
        """Accepts for the family's pod subnet over the bridge; None without one, or without the command."""
        subnet = next((one for one in spec.subnets if is_ipv6(one) == (self._family == "ip6")), "")
        if not subnet or not firewall.iptables_works(self._family):
            return None
        rules = firewall.iptables_rules("filter", self._family)
        found = self._read(rules)
        stands = found is not None and found["at"] and not found["behind"]
        return {
            "name": spec.name,
            "subnet": subnet,
            "bridge": spec.bridge,
            "at": found["at"] if found is not None and stands else _place(rules),
            "behind": "",
        }

    def remember(self) -> None:
        """Keep which iptables chains there were."""
        if firewall.has_command(self._program):
            firewall.remember_iptables(self._family)

    def describe(self, before: State | None, after: State | None) -> tuple[str, str]:
        """The summary and the iptables commands."""
        program = self._program
        if _UNREADABLE in (after or {}):
            return f"put {CHAIN} back", ""
        if _UNREADABLE in (before or {}):
            summary = f"remove {CHAIN}, the accepts for pods in {self._program}' FORWARD"
            return summary, "\n".join(chains.removal_commands("filter", CHAIN, self._family))
        if after is None:
            return f"remove the accepts for pods from {self._program}' FORWARD", "\n".join(
                (
                    f"{program} -w -D {before['at'] if before else 'FORWARD'} {' '.join(_jump(before))}",
                    f"{program} -w -F {CHAIN}",
                    f"{program} -w -X {CHAIN}",
                )
            )
        lines = [f"{program} -w -N {CHAIN}"] if before is None else [f"{program} -w -F {CHAIN}"]
        lines += [f"{program} -w -A {CHAIN} {' '.join(words)}" for words in _accepts(after)]
        if before is not None and before["at"]:
            lines.append(f"{program} -w -D {before['at']} {' '.join(_jump(before))}")
        lines.append(f"{program} -w -I {after['at']} 1 {' '.join(_jump(after))}")
        return f"accept packets from and to {after['subnet']} at the head of {after['at']}", "\n".join(lines)

    def carry_out(self, change: Change) -> None:
        """All of it in one iptables-restore. Raises Problem."""
        after = change.after
        if _UNREADABLE in (after or {}):
            raise Problem(
                f"{CHAIN} can't be put back: {chains.gone(self._family)}",
                f"install {self._program}, then: cnictl apply",
            )
        if _UNREADABLE in (change.before or {}):
            chains.remove("filter", CHAIN, self._family)
            firewall.drop_left_over("filter", "FORWARD", self._family)
            return
        if after is not None:
            chains.note("filter", CHAIN, self._family)
        jumps = [
            words[1:]
            for words in firewall.iptables_rules("filter", self._family)
            if words[0] == "-A" and words[1] != CHAIN and words[-2:] == ["-j", CHAIN]
        ]
        lines = ["*filter", *(f"-D {shlex.join(words)}" for words in jumps)]
        if after is not None and after["subnet"]:
            lines.append(f":{CHAIN} - [0:0]")
            lines += [f"-A {CHAIN} {' '.join(words)}" for words in _accepts(after)]
            if after["at"]:
                lines.append(f"-I {after['at']} 1 {' '.join(_jump(after))}")
        elif change.before is not None:
            lines += [f":{CHAIN} - [0:0]", f"-X {CHAIN}"]
        run([f"{self._program}-restore", "--noflush", "-w"], "\n".join([*lines, "COMMIT", ""]))
        if after is None:
            chains.forget("filter", CHAIN, self._family)
            firewall.drop_left_over("filter", "FORWARD", self._family)

    def _read(self, rules: list[list[str]]) -> State | None:
        if ["-N", CHAIN] not in rules:
            return None
        accepts = [words[2:] for words in rules if words[:2] == ["-A", CHAIN]]
        state: dict[str, Any] = {"name": "", "subnet": "", "bridge": "", "at": "", "behind": ""}
        if len(accepts) == 2:
            named = _options(accepts[0])
            tried = {
                "name": named.get("--comment", "").removeprefix("cnictl:"),
                "subnet": named.get("-s", ""),
                "bridge": named.get("-i", ""),
            }
            if [_options(words) for words in accepts] == [_options(words) for words in _accepts(tried)]:
                state.update(tried)
        for at in (DOCKER_CHAIN, "FORWARD"):
            chain = [words for words in rules if words[:2] == ["-A", at]]
            position = next((n for n, words in enumerate(chain) if words[-2:] == ["-j", CHAIN]), None)
            if position is not None:
                state["at"] = at
                state["behind"] = next((" ".join(words) for words in chain[:position] if _drops(words)), "")
                break
        return state


def _place(rules: list[list[str]]) -> str:
    """DOCKER-USER, where FORWARD leads there; else FORWARD itself."""
    leads = any(words[:2] == ["-A", "FORWARD"] and words[-2:] == ["-j", DOCKER_CHAIN] for words in rules)
    return DOCKER_CHAIN if leads else "FORWARD"


def _drops(words: list[str]) -> bool:
    return "-j" in words and words[words.index("-j") + 1] in _VERDICTS


def _jump(state: State | None) -> list[str]:
    name = state["name"] if state else ""
    return ["-m", "comment", "--comment", f"cnictl:{name}", "-j", CHAIN]


def _accepts(state: dict[str, Any]) -> list[list[str]]:
    mark = ["-m", "comment", "--comment", f"cnictl:{state['name']}", "-j", "ACCEPT"]
    return [
        ["-s", state["subnet"], "-i", state["bridge"], *mark],
        ["-d", state["subnet"], "-o", state["bridge"], *mark],
    ]


def _options(words: list[str]) -> dict[str, str]:
    """Options of a rule to their values: `-m comment` alone is no condition of ours to compare by order."""
    return dict(zip(words[::2], words[1::2], strict=False))
