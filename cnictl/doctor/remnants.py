"""Find remains of cnictl on a host that is not a node: its files were lost, or saved rules were restored at boot."""

from collections.abc import Iterable

from cnictl.doctor.check import Check, HostFault
from cnictl.doctor.facts import Facts
from cnictl.node import hint
from cnictl.node.runs import reset


def _remnants(facts: Facts) -> Iterable[HostFault]:
    if facts.spec is not None:
        return
    for remnant in reset.remains():
        yield HostFault(
            "this host", f"is not a node, but still has: {remnant}", hint.command("cnictl reset-node"), False
        )


CHECKS = (
    Check(
        "remnants", 44, "warning",
        "chains CNICTL-*, rules whose comment begins with cnictl:, nftables' tables cnictl, routes of protocol 67 and "
        "68, links with cnictl's alias, the files of a node; on a host without node.toml",
        "Leftover accept rules, masquerade rules and routes affect packets in ways that nobody expects.",
        "cnictl reset-node --dry-run\ncnictl reset-node",
        _remnants,
    ),
)  # fmt: skip
