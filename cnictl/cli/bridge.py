"""`cnictl bridge`: bring up, remove and show the pods' bridge."""

import os
from typing import Annotated, Any

import typer

from cnictl.cli import differences, root, steps
from cnictl.cli.asking import YesOption
from cnictl.cli.options import ConfirmOption, DryRunOption, ExitCodeOption, ForceOption, NoWaitOption
from cnictl.cli.output import Format, OutputOption, print_json, print_table, say
from cnictl.core.errors import Problem
from cnictl.node.addresses import lease_list
from cnictl.node.runs import converge, edits, engine
from cnictl.node.spec import addressing
from cnictl.views import network_views as views


def up(
    subnet: Annotated[
        list[str] | None,
        typer.Option(metavar="CIDR", help="This node's pod CIDR, one for each address family. Default: node.toml's."),
    ] = None,
    network: Annotated[
        list[str] | None,
        typer.Option(
            metavar="CIDR", help="The pod network of all nodes, one for each address family. Default: node.toml's."
        ),
    ] = None,
    bridge: Annotated[str, typer.Option(metavar="LINK", help="The bridge. Default: node.toml's, or cni0.")] = "",
    mtu: Annotated[
        int | None,
        typer.Option(
            metavar="BYTES", help="MTU; 0: the smallest MTU of the links to other hosts. Default: node.toml's."
        ),
    ] = None,
    dry_run: DryRunOption = False,
    exit_code: ExitCodeOption = False,
    force: ForceOption = False,
    no_wait: NoWaitOption = False,
    confirm_within: ConfirmOption = None,
    output: OutputOption = Format.TABLE,
) -> None:
    """Make the bridge, give it the subnet's first address, and let the host forward its pods' packets.

    A host that is not set up as a node needs --subnet and --network. `nat enable`, `route add-peer` and `apply` then
    add masquerade, routes and the plugin.

    \b
    cnictl bridge up
    cnictl bridge up --subnet 10.244.0.0/24 --network 10.244.0.0/20 --dry-run
    """
    change = edits.BridgeUp(addressing.parse_list(subnet or []), addressing.parse_list(network or []), bridge, mtu)
    start = change.start()
    change.edit(start)
    root.require_root("bridge up", "makes the bridge and turns forwarding on")
    options = steps.options_of(dry_run, exit_code, force, no_wait, confirm_within)
    engine.edit_node("bridge up", change.edit, change.kinds(), options, steps.Terminal(output, exit_code), start)


def down(
    yes: YesOption = False,
    dry_run: DryRunOption = False,
    exit_code: ExitCodeOption = False,
    force: ForceOption = False,
    no_wait: NoWaitOption = False,
    output: OutputOption = Format.TABLE,
) -> None:
    """Remove the bridge until the next `bridge up`, `apply` or pod; node.toml stays as it is.

    A bridge that cnictl did not make stays, without the address that cnictl gave it. At a terminal, bridge down shows
    what it will remove, and asks.

    \b
    cnictl bridge down
    """
    root.require_root("bridge down", "removes the bridge")
    nothing = f"nothing to change: {converge.current_spec().bridge} does not exist"
    options = steps.options_of(dry_run, exit_code, force, no_wait)
    engine.take_bridge_down(options, steps.Terminal(output, exit_code, yes, nothing))


def show(output: OutputOption = Format.TABLE) -> None:
    """Show the bridge, its addresses and ports, and, as root, the pod on each port.

    Exit status 1 if there is no bridge, or if its kind, state, addresses or MTU differ from node.toml.

    \b
    cnictl bridge show
    """
    spec = converge.current_spec()
    rows = lease_list.listing_of(spec.name, spec).rows if os.geteuid() == 0 else ()  # only root can read records
    shown = views.bridge(spec, rows)
    if shown is None:
        raise Problem(f"there is no link {spec.bridge}", "cnictl bridge up")
    faults = views.bridge_faults(spec)
    if output is Format.JSON:
        print_json({**shown, "faults": faults})
    else:
        _show(shown)
    for fault in faults:
        say(fault)
    if faults:
        raise typer.Exit(1)


_WORDS = {"made_by": "made by", "iptables_sees_bridged": "iptables sees packets between pods"}
"""What the table calls a key of the JSON, if not by its name."""


def _show(bridge: dict[str, Any]) -> None:
    print_table(
        ("", ""),
        [(_WORDS.get(key, key), differences.compact(value)) for key, value in bridge.items() if key != "ports"],
    )
    rows = [
        (port["name"], "up" if port["up"] else "down", str(port["mtu"]), port["pod"], ", ".join(port["addresses"]))
        for port in bridge["ports"]
    ]
    print_table(("port", "state", "mtu", "pod", "address"), rows)
