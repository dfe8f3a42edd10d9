"""`cnictl bridge`: the pods' bridge by itself."""

import contextlib
import os
from dataclasses import replace
from typing import Annotated, Any

import typer

from cnictl.cli import asking
from cnictl.cli.asking import YesOption
from cnictl.cli.output import Format, OutputOption, print_json, print_table, say, working
from cnictl.cli.steps import (
    ConfirmOption,
    DryRunOption,
    ExitCodeOption,
    ForceOption,
    How,
    NoWaitOption,
    Steps,
    alone,
    compact,
    detach,
    edit_node,
    refuse_while_unconfirmed,
    require_root,
    show_plan,
    show_run,
)
from cnictl.core.errors import Problem, UsageProblem
from cnictl.node import spine
from cnictl.node.addresses import lease_list
from cnictl.node.resources import inventory
from cnictl.node.resources.cni_conf import CniConf
from cnictl.node.runs import converge, live_pods
from cnictl.node.runs.live_pods import AttachedPod
from cnictl.node.spec import addressing
from cnictl.node.spec.node_spec import NodeSpec, as_data
from cnictl.node.spine import Plan
from cnictl.node.state.journal import Journal
from cnictl.views import network_views as views

_KINDS: tuple[str, ...] = ("file", "sysctl", "bridge", "address", "netfilter", "forward")


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
    known = converge.known_spec()
    subnets, networks = addressing.parse_list(subnet or []), addressing.parse_list(network or [])
    if known is None and not (subnets and networks):
        raise UsageProblem("this host is not set up as a node yet: bridge up needs --subnet and --network")

    def edited(spec: NodeSpec) -> NodeSpec:
        return addressing.check(
            replace(
                spec,
                subnets=addressing.changed_families(spec.subnets, subnets),
                networks=addressing.changed_families(spec.networks, networks),
                bridge=bridge or spec.bridge,
                mtu=spec.mtu if mtu is None else mtu,
            )
        )

    start = known or NodeSpec(subnets, networks, nat=False)
    wanted = edited(start)
    require_root("bridge up", "makes the bridge and turns forwarding on")
    kinds = _KINDS
    if CniConf(wanted).observe() is not None:
        kinds += (inventory.CONF_KIND,)
    if known is not None and (wanted.subnets, wanted.bridge) != (known.subnets, known.bridge):
        kinds += ("masquerade",)
    how = How(dry_run, exit_code, force, no_wait, confirm_within)
    edit_node("bridge up", edited, kinds, how, output, start)


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
    spec = converge.current_spec()
    made = [
        one
        for one in reversed(inventory.resources(spec, converge.specs_in_place()))
        if inventory.kind(one) in ("bridge", "address", "netfilter")
    ]
    how = How(dry_run, exit_code, force, no_wait).check()

    def look() -> tuple[list[AttachedPod], Plan]:
        pods = live_pods.cut_off([spec], None)
        if not force:
            live_pods.refuse(pods, "cnictl bridge down")
        return pods, spine.plan_removal(made)

    shown = None
    if not dry_run and asking.asks(yes):
        shown = look()
        asking.show([*(f"delete the attachment of {pod}" for pod in shown[0]), *(c.summary for c in shown[1].changes)])
        if shown[1].changes:
            asking.confirm(f"Take {spec.bridge} down?")
    with contextlib.nullcontext() if dry_run else alone(how):
        pods, todo = look()
        if shown is not None:
            asking.refuse_unshown(shown[1], todo, map(asking.pod, shown[0]), map(asking.pod, pods))
        if dry_run:
            show_plan(todo, output, exit_code, pods_cut_off=[str(pod) for pod in pods])
            return
        todo.refuse_unknown()
        refuse_while_unconfirmed(spec)
        journal, steps = Journal("bridge down", {"spec": as_data(spec)}), Steps()
        detach(pods, journal)
        todo = spine.plan_removal(made)
        with working("looking at this host") as tell:
            spine.apply(todo, steps.following(todo, tell), journal)
        journal.end("done")
    show_run(todo, steps, output, nothing=f"nothing to change: {spec.bridge} is not there")


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
