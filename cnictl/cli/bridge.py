"""`cnictl bridge`: the pods' bridge by itself."""

import os
from typing import Annotated, Any

import typer

from cnictl.cli.asking import YesOption
from cnictl.cli.output import Format, OutputOption, print_json, print_table, say
from cnictl.cli.steps import (
    ConfirmOption,
    DryRunOption,
    ExitCodeOption,
    ForceOption,
    NoWaitOption,
    Terminal,
    compact,
    options_of,
    require_root,
)
from cnictl.core.errors import Problem
from cnictl.node.addresses import lease_list
from cnictl.node.runs import converge, engine
from cnictl.node.runs.edits import BridgeUp
from cnictl.node.spec import addressing
from cnictl.views import network_views as views


def up(
    subnet: Annotated[
        list[str] | None, typer.Option(help="This node's pod CIDR, once a family. Default: the node's.")
    ] = None,
    network: Annotated[
        list[str] | None, typer.Option(help="The pod network of all nodes, once a family. Default: the node's.")
    ] = None,
    bridge: Annotated[str, typer.Option(help="The bridge's name. Default: the node's, or cni0.")] = "",
    mtu: Annotated[int | None, typer.Option(help="MTU in bytes, 0 for the uplink's. Default: the node's.")] = None,
    dry_run: DryRunOption = False,
    exit_code: ExitCodeOption = False,
    force: ForceOption = False,
    no_wait: NoWaitOption = False,
    confirm_within: ConfirmOption = None,
    output: OutputOption = Format.TABLE,
) -> None:
    """Make the bridge, give it the subnet's first address, let the host forward its pods' packets.

    On a host that is no node yet, name the subnet and the network; masquerade, routes and plugin then follow with
    `nat enable`, `route add-peer` and `apply`.

    \b
    cnictl bridge up
    cnictl bridge up --subnet 10.244.0.0/24 --network 10.244.0.0/20 --dry-run
    """
    asked = BridgeUp(addressing.parse_list(subnet or []), addressing.parse_list(network or []), bridge, mtu)
    start = asked.start()
    asked.edit(start)
    require_root("bridge up", "makes the bridge and turns forwarding on")
    options = options_of(dry_run, exit_code, force, no_wait, confirm_within)
    engine.edit_node("bridge up", asked.edit, asked.kinds(), options, Terminal(output, exit_code), start)


def down(
    yes: YesOption = False,
    dry_run: DryRunOption = False,
    exit_code: ExitCodeOption = False,
    force: ForceOption = False,
    no_wait: NoWaitOption = False,
    output: OutputOption = Format.TABLE,
) -> None:
    """Take the bridge away until the next `bridge up`, `apply` or pod; what the node should be stays as it is.

    A bridge that cnictl did not make stays, without the address that cnictl gave it. What goes is shown first, and at
    a terminal it asks.

    \b
    cnictl bridge down
    """
    require_root("bridge down", "removes the bridge")
    nothing = f"nothing to change: {converge.current_spec().bridge} is not there"
    engine.take_bridge_down(options_of(dry_run, exit_code, force, no_wait), Terminal(output, exit_code, yes, nothing))


def show(output: OutputOption = Format.TABLE) -> None:
    """Show the bridge, its address and its ports, with the pod behind each (as root).

    Exit status 1 if there is none, or if kind, state, address or MTU are not as they should be.

    \b
    cnictl bridge show
    """
    spec = converge.current_spec()
    rows = lease_list.listing_of(spec.name, spec).rows if os.geteuid() == 0 else ()  # records are root's to read
    found = views.bridge(spec, rows)
    if found is None:
        raise Problem(f"there is no link {spec.bridge}", "cnictl bridge up")
    wrong = views.bridge_faults(spec)
    if output is Format.JSON:
        print_json({**found, "faults": wrong})
    else:
        _show(found)
    for fault in wrong:
        say(fault)
    if wrong:
        raise typer.Exit(1)


def _show(found: dict[str, Any]) -> None:
    print_table(("", ""), [(key, compact(value)) for key, value in found.items() if key != "ports"])
    rows = [
        (port["name"], "up" if port["up"] else "down", str(port["mtu"]), port["pod"], compact(port["addresses"]))
        for port in found["ports"]
    ]
    print_table(("port", "state", "mtu", "pod", "address"), rows)
