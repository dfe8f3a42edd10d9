"""Choose the hint for a rule or policy that drops packets deliberately: no accept rule of cnictl's is missing."""

from cnictl.node import hint
from cnictl.node.hint import Hint
from cnictl.probe.trace import Drop

_MANAGED_TABLES = ("firewalld", "cnictl")
_MANAGED_CHAINS = ("CNICTL-", "CNI-", "KUBE-", "cali-", "CILIUM_", "DOCKER", "ufw", "f2b-", "LIBVIRT_")
"""The beginnings of chains that a program keeps: it makes a deleted rule again, or relies on it."""


def for_drop(drop: Drop | None, own: str) -> Hint:
    """Return what lets packets of `own` pass. None means that the rule is not known.

    An accept in the chain of a rule that drops does nothing if it comes after that rule, so the rule is deleted.
    """
    if drop is None or not drop.rule:
        return hint.advice(f"accept {own} in that chain", because="the chain's owner decides what it accepts")
    if not drop.delete or is_managed(drop):
        return hint.advice(
            f"accept {own} before that rule, with the program that made it",
            because="another program keeps the rule, or the rule is gone",
        )
    return hint.command(drop.delete, "or accept the packets before that rule")


def is_managed(drop: Drop) -> bool:
    """Return whether a program keeps the chain of a rule, so that a deleted rule would come back."""
    return drop.table.partition(" ")[2] in _MANAGED_TABLES or drop.chain.startswith(_MANAGED_CHAINS)
