"""`cnictl nat`: the masquerade of what pods send outside the pod network."""

from dataclasses import replace
from typing import Annotated

import typer

from cnictl.cli.asking import YesOption
from cnictl.cli.output import Format, OutputOption, print_items, print_table, say
from cnictl.cli.steps import (
    ConfirmOption,
    DryRunOption,
    ExitCodeOption,
    NoWaitOption,
    Terminal,
    options_of,
    require_root,
)
from cnictl.core.errors import UsageProblem
from cnictl.core.masquerade.backends import BACKENDS
from cnictl.node.resources.masquerade import Masquerade
from cnictl.node.runs import converge, edits, engine
from cnictl.node.spec.node_spec import NodeSpec
from cnictl.views import network_views as views


def enable(
    backend: Annotated[str, typer.Option(help="nft or iptables. Default: the node's.")] = "",
    dry_run: DryRunOption = False,
    exit_code: ExitCodeOption = False,
    no_wait: NoWaitOption = False,
    confirm_within: ConfirmOption = None,
    output: OutputOption = Format.TABLE,
) -> None:
    """Masquerade what pods send outside the pod network; between pods of all nodes the source stays the pod's own.

    With another --backend the rules move there.

    \b
    cnictl nat enable
    cnictl nat enable --backend iptables --dry-run
    """
    if backend and backend not in BACKENDS:
        raise UsageProblem(f"backend {backend!r} is neither {' nor '.join(BACKENDS)}")
    require_root("nat enable", "loads the masquerade rules")

    def edited(spec: NodeSpec) -> NodeSpec:
        return replace(spec, nat=True, backend=backend or spec.backend)

    options = options_of(dry_run, exit_code, no_wait=no_wait, confirm_within=confirm_within)
    engine.edit_node("nat enable", edited, edits.masquerade_kinds(), options, Terminal(output, exit_code))


def disable(
    yes: YesOption = False,
    dry_run: DryRunOption = False,
    exit_code: ExitCodeOption = False,
    no_wait: NoWaitOption = False,
    confirm_within: ConfirmOption = None,
    output: OutputOption = Format.TABLE,
) -> None:
    """Take the masquerade rules away, and tell the plugin not to bring them back. At a terminal it asks first.

    \b
    cnictl nat disable
    """
    require_root("nat disable", "removes the masquerade rules")
    engine.edit_node(
        "nat disable",
        lambda spec: replace(spec, nat=False),
        edits.masquerade_kinds(),
        options_of(dry_run, exit_code, no_wait=no_wait, confirm_within=confirm_within),
        Terminal(output, exit_code, yes),
        question="Stop masquerading?",
    )


def show(output: OutputOption = Format.TABLE) -> None:
    """Show the masquerade rules that are loaded, what each is for and what it counted.

    Exit status 1 if they should be loaded and are not.

    \b
    cnictl nat show
    cnictl nat show -o json | jq '.items[].packets'
    """
    require_root("nat show", "reads the firewall's rules")
    spec = converge.current_spec()
    rules = views.nat(spec)
    resource = Masquerade(spec)
    stands = resource.observe() == resource.desired(spec)
    if output is Format.JSON:
        print_items(rules, {"nat": spec.nat, "backend": spec.backend, "as_it_should_be": stands})
    else:
        rows = [
            (
                rule["source"],
                rule["destination"],
                rule["effect"],
                str(rule["packets"]),
                str(rule["bytes"]),
                rule["where"],
            )
            for rule in rules
        ]
        print_table(("from", "to", "effect", "packets", "bytes", "where"), rows)
        if not spec.nat:
            say("masquerade is off: `cnictl nat enable` turns it on")
        if not stands:
            say("the rules are not as they should be: `cnictl apply` repairs them")
    if not stands:
        raise typer.Exit(1)
