"""`cnictl nat`: masquerade what pods send outside the pod network."""

from dataclasses import replace
from typing import Annotated

import typer

from cnictl.cli import root, steps
from cnictl.cli.asking import YesOption
from cnictl.cli.options import ConfirmOption, DryRunOption, ExitCodeOption, NoWaitOption
from cnictl.cli.output import Format, ListOption, OutputOption, print_items, print_list, say
from cnictl.core.errors import UsageProblem
from cnictl.core.masquerade import backends
from cnictl.node.runs import converge, edits, engine
from cnictl.node.spec import node_spec
from cnictl.views import network_views as views


def enable(
    backend: Annotated[str, typer.Option(metavar="BACKEND", help="nft or iptables. Default: node.toml's.")] = "",
    dry_run: DryRunOption = False,
    exit_code: ExitCodeOption = False,
    no_wait: NoWaitOption = False,
    confirm_within: ConfirmOption = None,
    output: OutputOption = Format.TABLE,
) -> None:
    """Masquerade what pods send outside the pod network. Between pods, the source stays the pod's own address.

    With another --backend, the rules move to it.

    \b
    cnictl nat enable
    cnictl nat enable --backend iptables --dry-run
    """
    if backend and backend not in backends.BACKENDS:
        raise UsageProblem(f"backend {backend!r} is neither {' nor '.join(backends.BACKENDS)}")
    root.require_root("nat enable", "loads the masquerade rules")

    def edited(spec: node_spec.NodeSpec) -> node_spec.NodeSpec:
        return replace(spec, nat=True, backend=backend or spec.backend)

    options = steps.options_of(dry_run, exit_code, no_wait=no_wait, confirm_within=confirm_within)
    engine.edit_node("nat enable", edited, edits.masquerade_kinds(), options, steps.Terminal(output, exit_code))


def disable(
    yes: YesOption = False,
    dry_run: DryRunOption = False,
    exit_code: ExitCodeOption = False,
    no_wait: NoWaitOption = False,
    confirm_within: ConfirmOption = None,
    output: OutputOption = Format.TABLE,
) -> None:
    """Remove the masquerade rules, and tell the plugin not to load them again. At a terminal it asks first.

    \b
    cnictl nat disable
    """
    root.require_root("nat disable", "removes the masquerade rules")
    engine.edit_node(
        "nat disable",
        lambda spec: replace(spec, nat=False),
        edits.masquerade_kinds(),
        steps.options_of(dry_run, exit_code, no_wait=no_wait, confirm_within=confirm_within),
        steps.Terminal(output, exit_code, yes),
        question="Stop masquerading?",
    )


def show(output: ListOption = Format.TABLE) -> None:
    """Show the masquerade rules that are loaded, with the packets and bytes that each has counted.

    Exit status 1 if the rules differ from what node.toml asks for.

    \b
    cnictl nat show
    cnictl nat show -o json | jq '.items[].packets'
    """
    root.require_root("nat show", "reads the firewall's rules")
    spec = converge.current_spec()
    rules = views.nat(spec)
    is_right = views.nat_is_right(spec)
    if output is Format.JSON:
        print_items(rules, {"nat": spec.nat, "backend": spec.backend, "as_it_should_be": is_right})
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
        columns = ("from", "to", "effect", "packets", "bytes", "where")
        print_list(output, columns, rows, (rule["where"] for rule in rules))
        if not spec.nat:
            say("masquerade is off: `cnictl nat enable` turns it on")
        if not is_right:
            say("the rules differ from node.toml: `cnictl apply` repairs them")
    if not is_right:
        raise typer.Exit(1)
