"""The two packet filters that a masquerade rule set can be loaded into, and the choice between them."""

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Protocol

    from cnictl.core.cidr import Cidr
    from cnictl.core.masquerade.rule_set import RuleSet

    class Backend(Protocol):
        """One packet filter. `families`: bits of an address, 32 and 128; iptables has a program for each."""

        name: str

        def is_loaded(self, rules: RuleSet) -> bool:
            """Return whether the kernel has the whole rule set, unchanged."""

        def present(self, name: str, families: Iterable[int] = ...) -> bool:
            """Return whether the kernel has any of a network's rules, in this form or an earlier cnictl's."""

        def load(self, rules: RuleSet) -> None:
            """Load the rule set in place of what is there: all families or none. Raises CniError 106, 2."""

        def check(self, rules: RuleSet) -> None:
            """Raise what `load` would raise, as far as that is known without changing anything."""

        def check_any(self, name: str, subnet: Cidr) -> None:
            """Raise what `load` would raise for any subnet that a pod may bring; `subnet` is an example."""

        def remove(self, name: str, scope: str = "") -> None:
            """Remove a network's rules, or those of one scope; missing rules are not an error. Raises CniError 106."""

        def steps(self, rules: RuleSet) -> list[tuple[list[str], str]]:
            """Return the manual commands for `load`, each with its input."""

        def removal_commands(self, name: str, families: Iterable[int] = ...) -> list[str]:
            """Return the manual commands for `remove`."""


BACKENDS = ("nft", "iptables")


def backend(name: str) -> "Backend":
    """Return the backend of that name, one of BACKENDS. A plugin call loads only the one that it uses."""
    if name == "nft":
        from cnictl.core.masquerade.nft import Nft

        return Nft()
    from cnictl.core.masquerade.iptables import Iptables

    return Iptables()


def ensure(rules: "RuleSet", name: str) -> bool:
    """Load the rule set into a backend unless it is loaded; return whether the network had no rules before.

    Raises CniError 106 with the program's message, 2 if the program or its part of the kernel is missing.
    """
    chosen = backend(name)
    if chosen.is_loaded(rules):
        return False
    new = not chosen.present(rules.name, rules.families)
    chosen.load(rules)
    return new
