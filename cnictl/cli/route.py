"""`cnictl route`: the routes to other nodes' pods."""

import dataclasses
from typing import Annotated

import typer

from cnictl.cli.asking import YesOption
from cnictl.cli.output import Format, OutputOption, print_json, print_table, say, say_strays
from cnictl.cli.steps import ConfirmOption, DryRunOption, ExitCodeOption, How, NoWaitOption, edit_node, require_root
from cnictl.core.errors import Problem, UsageProblem
from cnictl.node.host import host_links
from cnictl.node.resources import peer_routes
from cnictl.node.runs import converge
from cnictl.node.spec import addressing, named_peers, node_file, peers, swapped
from cnictl.node.spec.node_spec import NodeSpec, Peer, is_ipv6
from cnictl.views import network_views, status

_KINDS = ("route", "forward", "firewalld")
"""What a peer changes: the way to its pods, and who may send to ours where the host's firewalls drop."""


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

    def edited(spec: NodeSpec) -> NodeSpec:
        return dataclasses.replace(spec, peers=named_peers.combine(spec.peers, (new,), False, replace).peers)

    now = converge.current_spec()
    addressing.check(edited(now))
    reached = host_links.reach_peer(new, host_links.peer_links(edited(now)).get(new, ""))
    if reached is not None and reached.gateway and not dev:
        raise Problem(
            f"{new.via} is not on the same link, it is reached through {reached.gateway}: "
            "plain routes can't carry pod traffic there",
            "put both nodes on one link (a prefix that holds both addresses), or name the link with --dev",
        )
    for line in named_peers.combine(now.peers, (new,), False, replace).in_words():
        say(line)
    kinds = _KINDS + (("bridge",) if _lowers_mtu(edited(now)) else ())
    edit_node("route add-peer", edited, kinds, How(dry_run, exit_code, False, no_wait, confirm_within), output)


def _lowers_mtu(spec: NodeSpec) -> bool:
    """Whether a new peer needs smaller packets of pods than the bridge has now. Raises Problem if IPv6 needs larger."""
    limit = host_links.narrowest(spec)
    if spec.mtu or limit.peer is None:
        return False
    least = addressing.MTU_MIN_IPV6
    if limit.mtu < least and any(map(is_ipv6, spec.subnets)):
        raise Problem(
            f"peer {limit.peer.via} is reached over {limit.link} with an MTU of {limit.mtu}, and pods' IPv6 needs "
            f"{least} bytes at least",
            f"ip link set {limit.link} mtu {least}, or name another link to it with --dev",
        )
    bridge = network_views.bridge(spec)
    return bridge is not None and bridge["up"] and bridge["mtu"] > limit.mtu


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

    def edited(spec: NodeSpec) -> NodeSpec:
        kept = tuple(peer for peer in spec.peers if peer.pod_cidr != gone)
        if len(kept) == len(spec.peers):
            named = ", ".join(peer.pod_cidr for peer in spec.peers) or "none"
            raise UsageProblem(f"peer {gone} is not one of this node's peers; they are: {named}")
        return dataclasses.replace(spec, peers=kept)

    how = How(dry_run, exit_code, False, no_wait, confirm_within, yes)
    edit_node("route del-peer", edited, _KINDS, how, output, question=f"Drop peer {gone}?")


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
        print_json({"routes": found})
    else:
        columns = ("pod_cidr", "via", "dev", "state", "link", "pods")
        rows = [tuple(row[key] or ("not asked" if key == "pods" else "") for key in columns) for row in found]
        print_table(("pod CIDR", "via", "dev", "state", "peer", "pods"), rows)
        for row in found:
            if row["fault"]:
                say(f"{row['fault']}\n  hint: {row['mend']}")
        if not found:
            say("no peers: `cnictl route add-peer CIDR ADDRESS` adds one")
        say_strays([stray for row in found for stray in row["strays"]])
    if any(row["fault"] for row in found) or not all(state.works for state in states):
        raise typer.Exit(1)
