"""`cnictl route`: the routes to other nodes' pods."""

from typing import Annotated

import typer

from cnictl.cli.asking import YesOption
from cnictl.cli.output import Format, OutputOption, print_items, print_table, say, say_strays
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
from cnictl.node.host import host_links
from cnictl.node.resources import peer_routes
from cnictl.node.runs import converge, edits, engine
from cnictl.node.runs.edits import AddPeer
from cnictl.node.spec import node_file, peers, swapped
from cnictl.node.spec.node_spec import Peer
from cnictl.views import status


def add_peer(
    cidr: Annotated[str, typer.Argument(help="The other node's pod CIDR, such as 10.244.1.0/24.")],
    via: Annotated[str, typer.Argument(help="The other node's own address, on the same link as this one.")],
    dev: Annotated[str, typer.Option(help="Link to it. Default: the one the kernel takes.")] = "",
    replace: Annotated[
        bool, typer.Option("--replace", help="Move the route of a peer that is reached through another address now.")
    ] = False,
    dry_run: DryRunOption = False,
    exit_code: ExitCodeOption = False,
    no_wait: NoWaitOption = False,
    confirm_within: ConfirmOption = None,
    output: OutputOption = Format.TABLE,
) -> None:
    """Route another node's pods through that node's address.

    A pod CIDR that a peer has already is refused: --replace moves it to the new address, and says from which.

    \b
    cnictl route add-peer 10.244.1.0/24 10.0.10.51
    cnictl route add-peer 10.244.1.0/24 10.0.10.52 --replace
    """
    meant = swapped.peer(cidr, via)
    if meant is not None:
        link = dev or meant.dev
        right = f"cnictl route add-peer {meant.pod_cidr} {meant.via}"
        raise UsageProblem(
            f"{cidr} {via}: the pod CIDR and the node's address are the wrong way round",
            f"{right} --dev {link}" if link else right,
        )
    new = peers.check_peer(Peer(cidr, via, dev))
    peers.check_not_ours((new,), host_links.own_interfaces())
    require_root("route add-peer", "changes the host's routes")

    asked = AddPeer(new, replace)
    asked.check()
    for line in asked.notes():
        say(line)
    options = options_of(dry_run, exit_code, no_wait=no_wait, confirm_within=confirm_within)
    engine.edit_node("route add-peer", asked.edit, asked.kinds(), options, Terminal(output, exit_code))


def del_peer(
    cidr: Annotated[str, typer.Argument(help="The other node's pod CIDR.")],
    yes: YesOption = False,
    dry_run: DryRunOption = False,
    exit_code: ExitCodeOption = False,
    no_wait: NoWaitOption = False,
    confirm_within: ConfirmOption = None,
    output: OutputOption = Format.TABLE,
) -> None:
    """Drop another node: its route goes, and nothing else. At a terminal it asks first.

    \b
    cnictl route del-peer 10.244.1.0/24
    """
    known = node_file.load()
    gone = peers.to_drop(cidr, known.peers if known is not None else ())
    require_root("route del-peer", "changes the host's routes")

    engine.edit_node(
        "route del-peer",
        lambda spec: edits.without_peer(spec, gone),
        edits.PEER_KINDS,
        options_of(dry_run, exit_code, no_wait=no_wait, confirm_within=confirm_within),
        Terminal(output, exit_code, yes),
        question=f"Drop peer {gone}?",
    )


def list_peers(output: OutputOption = Format.TABLE) -> None:
    """List the peers and the state of the route to each.

    For each peer: whether its route is there and is used, whether its node is on the same link, and (as root) whether
    it has its pod CIDR.

    Exit status 1 if a route is missing, differs, is another's, or has outlived its peer, if the kernel sends packets of
    pods elsewhere in spite of it (by a policy rule, or a more specific route), or if a peer answers and does not have
    its pod CIDR or forwards nothing to it.

    \b
    cnictl route list
    """
    states = peer_routes.states(converge.current_spec())
    found = status.routes(states)
    if output is Format.JSON:
        print_items(found)
    else:
        columns = ("pod_cidr", "via", "dev", "state", "link", "pods")
        rows = [tuple(row[key] or ("not asked" if key == "pods" else "") for key in columns) for row in found]
        print_table(("pod CIDR", "via", "dev", "state", "peer", "pods"), rows)
        for row in found:
            if row["fault"]:
                say(f"{row['fault']}\n  hint: {row['hint']['text']}")
        if not found:
            say("no peers: `cnictl route add-peer CIDR ADDRESS` adds one")
        say_strays([stray for row in found for stray in row["strays"]])
    if any(row["fault"] for row in found) or not all(state.works for state in states):
        raise typer.Exit(1)
