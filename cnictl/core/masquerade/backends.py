"""The two packet filters that a masquerade rule set is loaded into, and the one place that chooses between them."""

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Protocol

    from cnictl.core.cidr import Cidr
    from cnictl.core.masquerade.rule_set import RuleSet

    class Backend(Protocol):
        """One packet filter. `families`: bits of an address, 32 and 128; iptables is asked by family."""

        name: str

        def stands(self, rules: RuleSet) -> bool:
            """Return whether the whole rule set is in the kernel as it should be."""

        def present(self, name: str, families: Iterable[int] = ...) -> bool:
            """Return whether any of a network's rules are there, in this form or a former one."""

        def load(self, rules: RuleSet) -> None:
            """Bring the rule set about, whatever of it was there: all families or none. Raises CniError 106, 2."""

        def check(self, rules: RuleSet) -> None:
            """Raise what `load` would raise, as far as that can be known without a change."""

        def check_any(self, name: str, subnet: Cidr) -> None:
            """Raise what `load` would raise whichever subnets a pod brings; `subnet` is an example."""

        def remove(self, name: str, scope: str = "") -> None:
            """Remove all of a network's rules, or those of one scope; none there is no error. Raises CniError 106."""

        def steps(self, rules: RuleSet) -> list[tuple[list[str], str]]:
            """Return the manual commands of `load`: each program with its input."""

        def removal_commands(self, name: str, families: Iterable[int] = ...) -> list[str]:
            """Return the manual commands of `remove`."""


BACKENDS = ("nft", "iptables")


def backend(name: str) -> "Backend":
    """Return the backend of that name, one of BACKENDS. A plugin call loads only the one that it uses."""
    if name == "nft":
        from cnictl.core.masquerade.nft import Nft

        return Nft()
    from cnictl.core.masquerade.iptables import Iptables

    return Iptables()


def ensure(rules: "RuleSet", name: str) -> bool:
    """Load the rule set into a backend unless it stands; return whether nothing of the network's was there before.

    Raises CniError 106 with the tool's own words, 2 where the tool or the kernel's part of it is missing.
    """
    chosen = backend(name)
    if chosen.stands(rules):
        return False
    new = not chosen.present(rules.name, rules.families)
    chosen.load(rules)
    return new
