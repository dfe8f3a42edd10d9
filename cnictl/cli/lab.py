"""`cnictl lab`: run a cluster on one machine, without root."""

import os
from typing import Annotated, Any

import typer

from cnictl.cli import asking
from cnictl.cli.asking import YesOption
from cnictl.cli.output import Format, ListOption, print_items, print_list, say
from cnictl.cli.renamed import FormerLabOption
from cnictl.cluster import lab_pod
from cnictl.lab import named, plan, state
from cnictl.lab.lab import environment

LabOption = Annotated[
    str, typer.Option("--lab", metavar="NAME", help="The lab's name: several labs can run side by side.")
]


def up(
    nodes: Annotated[
        int | None, typer.Option("--nodes", metavar="COUNT", min=1, max=16, help="How many nodes; a new lab has 2.")
    ] = None,
    lab: LabOption = "lab",
    former: FormerLabOption = "",
    dual_stack: Annotated[bool, typer.Option("--dual-stack", help="Give the nodes IPv4 and IPv6 addresses.")] = False,
) -> None:
    """Bring up a lab: nodes on one network segment, and a host outside. Each has its own network, firewall and files.

    The nodes are bare hosts with cnictl on their PATH. The host outside also answers at test-connectivity's default
    addresses, 1.1.1.1 and 2606:4700:4700::1111. Set the nodes up as you would set up real ones:

    \b
      cnictl lab up
      cnictl lab exec node1 -- cnictl init-node --subnet 10.244.0.0/24 --network 10.244.0.0/20
      cnictl lab pod node1 web       # a pod, through the plugin that init-node installed
      cnictl lab exec node1          # a shell
      cnictl lab down
      cnictl lab up --dual-stack     # cnictl lab status shows the addresses and pod CIDRs of both families
    """
    name = former or lab
    started = named.bring_up(name, nodes, dual_stack)
    if started is None:
        say(f"lab {name!r} is already up")
    else:
        say(f"lab {name!r} is up: {', '.join(node.name for node in started.nodes)}, outside")


def down(lab: LabOption = "lab", former: FormerLabOption = "", yes: YesOption = False) -> None:
    """End a lab and everything that runs in it. At a terminal it asks first. A lab that is not up is not an error.

    \b
      cnictl lab down
      cnictl lab down --lab second
    """
    name = former or lab
    asks = asking.can_ask(yes)
    shown = named.running(name) if asks else None
    if shown is not None:
        asking.show(f"{machine.name} ({machine.interface}), and everything in it" for machine, _ in shown.machines)
        asking.confirm(f"End lab {name!r}?")
    was_up = named.end(name, asks, shown)
    say(f"lab {name!r} is down" if was_up else f"lab {name!r} was not up")


def status(lab: LabOption = "lab", former: FormerLabOption = "", output: ListOption = Format.TABLE) -> None:
    """Show a lab's machines and their addresses; exit status 1 if it is not up.

    \b
      cnictl lab status -o json
    """
    name = former or lab
    running = named.running(name)
    machines = running.machines if running is not None else ()
    rows: list[dict[str, Any]] = [
        {
            "name": machine.name,
            "address": machine.interface,
            "pod_cidr": machine.pod_cidr,
            "pid": pid,
            "up": state.identity(pid) != "",
        }
        | ({"address6": machine.interface6, "pod_cidr6": machine.pod_cidr6} if machine.interface6 else {})
        for machine, pid in machines
    ]
    healthy = bool(rows) and all(row["up"] for row in rows)
    if output is Format.JSON:
        facts = {
            "name": name,
            "up": healthy,
            "holder": running.holder if running is not None else None,
            "network": plan.NETWORK,
        }
        print_items(rows, {**facts, "machines": rows})
    elif rows:
        cells = [
            (row["name"], _both(row, "address"), _both(row, "pod_cidr"), "ok" if row["up"] else "failed",
             str(row["pid"]))
            for row in rows
        ]  # fmt: skip
        columns = ("machine", "address", "pod CIDR", "state", "pid")
        print_list(output, columns, cells, (row["name"] for row in rows), more=1)
    else:
        say(f"lab {name!r} is not up ({named.command('up', name)})")
    if not healthy:
        raise typer.Exit(1)


def _both(row: dict[str, Any], key: str) -> str:
    return ", ".join(row[name] for name in (key, f"{key}6") if row.get(name)) or "-"


def execute(
    machine: Annotated[str, typer.Argument(metavar="NODE", help="The machine: node1, node2, … or outside.")],
    command: Annotated[
        list[str] | None,
        typer.Argument(metavar="[-- COMMAND...]", help="The command and its arguments. Default: a shell."),
    ] = None,
    lab: LabOption = "lab",
    former: FormerLabOption = "",
) -> None:
    """Run a command on a node of a lab, as root there. The exit status is the command's.

    \b
      cnictl lab exec node1 -- ip route
      cnictl lab exec node2
    """
    node = named.attach(former or lab).machine(machine)
    shell = ["bash"] if os.path.exists("/usr/bin/bash") else ["sh"]
    words = (command or [])[1 if command and command[0] == "--" else 0 :]
    argv = node.command(words or shell)
    os.execve(argv[0], argv, environment())


def pod(
    machine: Annotated[str, typer.Argument(metavar="NODE", help="The node: node1, node2, …")],
    name: Annotated[str, typer.Argument(metavar="NAME", help="The pod's NAMESPACE/NAME, or a NAME in `default`.")],
    delete: Annotated[bool, typer.Option("--delete", help="Delete the pod.")] = False,
    lab: LabOption = "lab",
) -> None:
    """Start a pod on a node of a lab, or delete it, through the node's CNI conf and plugin, as a runtime does.

    The pod is a network namespace on the node, without a container. Its name there is NAMESPACE_NAME.

    \b
      cnictl lab pod node1 web
      cnictl lab exec node1 -- cnictl ping web external
      cnictl lab exec node1 -- ip netns exec default_web ip address
      cnictl lab pod node1 web --delete
    """
    chosen = lab_pod.full_name(name)
    node = named.attach(lab).machine(machine)
    if delete:
        lab_pod.delete(node, chosen)
        say(f"deleted pod {chosen} on {node.name}")
        return
    addresses = lab_pod.start(node, chosen)
    say(f"pod {chosen} runs on {node.name}, with {', '.join(addresses)} (ip netns exec {lab_pod.netns_of(chosen)} …)")
