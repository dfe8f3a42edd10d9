"""`cnictl route`: add, drop and list the routes to other nodes' pods."""

from typing import Annotated

import typer

from cnictl.cli import root, steps
from cnictl.cli.asking import YesOption
from cnictl.cli.options import ConfirmOption, DryRunOption, ExitCodeOption, NoWaitOption
from cnictl.cli.output import Format, ListOption, OutputOption, print_items, print_list, say, say_diversions
from cnictl.node.host import host_links
from cnictl.node.reach import peer_hints
from cnictl.node.resources import peer_routes
from cnictl.node.runs import converge, edits, engine
from cnictl.node.spec import node_file, peers
from cnictl.views import status


def add_peer(
    words: Annotated[
        list[str],
        typer.Argument(
            metavar="PEER...",
            help="Other nodes, each as CIDR=VIA[%LINK]: its pod CIDR, its own address, and the link to it. You can "
            "also give one node as two arguments: CIDR VIA[%LINK].",
        ),
    ],
    link: Annotated[
        str,
        typer.Option("--dev", metavar="LINK", help="Link for peers given without one. Default: chosen by the kernel."),
    ] = "",
    replace: Annotated[
        bool,
        typer.Option("--replace", help="Move a peer that this node reaches at another address to the new one."),
    ] = False,
    dry_run: DryRunOption = False,
    exit_code: ExitCodeOption = False,
    no_wait: NoWaitOption = False,
    confirm_within: ConfirmOption = None,
    output: OutputOption = Format.TABLE,
) -> None:
    """Route other nodes' pods through those nodes' addresses.

    All peers of one command are one run: if one of them fails, none is added, and one `cnictl undo` removes them all.
    A peer that this node already reaches at another address is refused; --replace moves it to the new one.

    \b
    cnictl route add-peer 10.244.1.0/24=10.0.10.51 10.244.2.0/24=10.0.2.53
    cnictl route add-peer 10.244.1.0/24=10.0.10.51%eth1     # through that link
    cnictl route add-peer 10.244.1.0/24 10.0.10.52 --replace
    """
    named = peers.parse_peers(words, link)
    peers.check_not_ours(named, host_links.own_interfaces())
    root.require_root("route add-peer", "changes the host's routes")

    addition = edits.AddPeers(named, replace)
    notes, kinds = addition.preview()
    for note in notes:
        say(note)
    options = steps.options_of(dry_run, exit_code, no_wait=no_wait, confirm_within=confirm_within)
    engine.edit_node("route add-peer", addition.edit, kinds, options, steps.Terminal(output, exit_code))


def del_peer(
    cidrs: Annotated[
        list[str], typer.Argument(metavar="CIDR...", help="The other nodes' pod CIDRs, such as 10.244.1.0/24.")
    ],
    yes: YesOption = False,
    dry_run: DryRunOption = False,
    exit_code: ExitCodeOption = False,
    no_wait: NoWaitOption = False,
    confirm_within: ConfirmOption = None,
    output: OutputOption = Format.TABLE,
) -> None:
    """Drop other nodes: remove the routes to their pods, and nothing else. At a terminal it asks first.

    \b
    cnictl route del-peer 10.244.1.0/24
    cnictl route del-peer 10.244.1.0/24 10.244.2.0/24
    """
    spec = node_file.load()
    known = spec.peers if spec is not None else ()
    gone = tuple(dict.fromkeys(peers.to_drop(cidr, known) for cidr in cidrs))
    root.require_root("route del-peer", "changes the host's routes")

    engine.edit_node(
        "route del-peer",
        lambda spec: edits.without_peers(spec, gone),
        edits.PEER_KINDS,
        steps.options_of(dry_run, exit_code, no_wait=no_wait, confirm_within=confirm_within),
        steps.Terminal(output, exit_code, yes),
        question=f"Drop peer {gone[0]}?" if len(gone) == 1 else f"Drop peers {', '.join(gone)}?",
    )


def list_peers(output: ListOption = Format.TABLE) -> None:
    """List the peers and the state of the route to each.

    For each peer, it shows whether the route exists and is used, and whether the peer is on the same network segment
    (L2). As root it also asks the peer whether it answers there and has its pod CIDR.

    Exit status 1 if a route is missing, differs, is not cnictl's, or belongs to no peer; if the kernel sends pods'
    packets elsewhere despite the route (by a policy rule or a more specific route); or if a peer answers but does not
    have its pod CIDR or does not forward to it.

    \b
    cnictl route list
    """
    spec = converge.current_spec()
    states = peer_routes.states(spec)
    rows = status.peers(spec, states)
    if output is Format.JSON:
        print_items(rows)
    else:
        cells = [
            (row["pod_cidr"], row["via"], row["dev"], row["state"], status.peer_words(row), row["pods"] or "not asked")
            for row in rows
        ]
        headings = ("pod CIDR", "via", "dev", "route", "peer", "pods")
        print_list(output, headings, cells, (row["pod_cidr"] for row in rows))
        for row in rows:
            if row["fault"]:
                say(f"{row['fault']}\n  hint: {row['hint']['text']}")
        if not rows:
            say(peer_hints.PeerHints(spec).no_peers("no peers: `cnictl route add-peer CIDR=VIA` adds one"))
        say_diversions([diversion for row in rows for diversion in row["strays"]])
    if any(row["fault"] for row in rows) or not all(state.works for state in states):
        raise typer.Exit(1)
