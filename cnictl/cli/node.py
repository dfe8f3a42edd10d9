"""`cnictl init-node`, `apply`, `plan`, `reset-node`: the node as a whole."""

from __future__ import annotations  # a type would execute the module that the loader postpones

import sys
from collections.abc import Collection
from typing import Annotated

import typer

from cnictl.cli import asking, root, steps
from cnictl.cli.asking import YesOption
from cnictl.cli.options import ConfirmOption, DryRunOption, ExitCodeOption, ForceOption, NoWaitOption
from cnictl.cli.output import Format, OutputOption, say, working
from cnictl.core.errors import Problem
from cnictl.node import preflight, spine
from cnictl.node.host import runtimes
from cnictl.node.reach import learning
from cnictl.node.resources import boot_note
from cnictl.node.runs import confirm, converge, edits, engine, joining, reset
from cnictl.node.spec import addressing, node_spec, peers


def init_node(
    subnet: Annotated[
        list[str] | None,
        typer.Option(metavar="CIDR", help="This node's pod CIDR, such as 10.244.0.0/24. One for each address family."),
    ] = None,
    network: Annotated[
        list[str] | None,
        typer.Option(
            metavar="CIDR", help="The pod network of all nodes, such as 10.244.0.0/20. One for each address family."
        ),
    ] = None,
    peer: Annotated[
        list[str] | None,
        typer.Option(
            metavar="PEER",
            help="Another node as CIDR=VIA[%LINK]: its pod CIDR, its own address, and the link to it. Repeatable.",
        ),
    ] = None,
    prune: Annotated[bool, typer.Option("--prune", help="Remove the peers of node.toml that no --peer names.")] = False,
    replace: Annotated[
        bool, typer.Option("--replace", help="Move the peers whose address in --peer differs from node.toml.")
    ] = False,
    bridge: Annotated[str | None, typer.Option(metavar="LINK", help="The pods' bridge. On a new node: cni0.")] = None,
    name: Annotated[
        str | None, typer.Option(metavar="NAME", help="The CNI network's name. On a new node: mynet.")
    ] = None,
    uplink: Annotated[
        str | None,
        typer.Option(
            metavar="LINK",
            help="The link to the other nodes. Default on a new node, and if empty: the default route's link.",
        ),
    ] = None,
    mtu: Annotated[
        int | None,
        typer.Option(
            metavar="BYTES",
            help="MTU of bridge and pods. Default on a new node, and if 0: the smallest MTU of the links to other "
            "hosts.",
        ),
    ] = None,
    nat: Annotated[
        bool | None, typer.Option("--nat/--no-nat", help="Masquerade what pods send outside. On a new node: --nat.")
    ] = None,
    backend: Annotated[
        str,
        typer.Option(
            metavar="BACKEND",
            help="Packet filter for masquerade: nft or iptables. On a new node: nft if it is installed.",
        ),
    ] = "",
    forward: Annotated[
        bool | None,
        typer.Option(
            "--forward/--no-forward",
            help="Accept pods' packets where this host's firewall drops them. On a new node: --forward.",
        ),
    ] = None,
    external: Annotated[
        list[str] | None,
        typer.Option(
            metavar="ADDRESS",
            help="Address outside that test-connectivity pings, one for each family. On a new node: 1.1.1.1 and, "
            "with an IPv6 route, 2606:4700:4700::1111.",
        ),
    ] = None,
    bin_dir: Annotated[
        list[str] | None,
        typer.Option(
            metavar="FOLDER",
            help="Folder for the plugin, besides the runtimes' own. Repeatable. An empty value clears the list.",
        ),
    ] = None,
    conf_dir: Annotated[
        list[str] | None,
        typer.Option(
            metavar="FOLDER",
            help="Folder for the CNI conf, besides the runtimes' own. Repeatable. An empty value clears the list.",
        ),
    ] = None,
    ignore: Annotated[
        list[str] | None,
        typer.Option(
            "--ignore",
            metavar="CHECK",
            help="Continue despite errors of this preflight check (the name in brackets), or of `all`. Repeatable.",
        ),
    ] = None,
    source: Annotated[
        str,
        typer.Option(
            "--from",
            metavar="FILE",
            help="Take the subnet and peers from this cluster file, or from `kubernetes`.",
        ),
    ] = "",
    node: Annotated[
        str,
        typer.Option(
            metavar="NODE",
            help="With --from: this node's name there. Default: the node with an address of this host; in Kubernetes, "
            "the one with the host's name.",
        ),
    ] = "",
    unclaimed: Annotated[
        str,
        typer.Option(
            metavar="ROUTE",
            help="With --from: `unreachable` (on a new node) rejects packets to unassigned pod CIDRs, `default-route` "
            "sends them to the default gateway.",
        ),
    ] = "",
    dry_run: DryRunOption = False,
    exit_code: ExitCodeOption = False,
    force: ForceOption = False,
    no_wait: NoWaitOption = False,
    confirm_within: ConfirmOption = None,
    output: OutputOption = Format.TABLE,
) -> None:
    """Set this host up as a node: forwarding, bridge, masquerade, peer routes, plugin, and the CNI conf last.

    A new node needs --subnet and --network. On a node, an option that is not given keeps its value in
    /etc/cnictl/node.toml, and a peer that is not named stays: --prune removes those peers, --replace moves a peer to
    another address. A new subnet replaces the old one.

    Before the first change, preflight checks report all errors together. --ignore CHECK continues despite one of them,
    and `cnictl history` shows that. If a step fails, the steps before it are undone.

    With --from, this node's pod CIDR and its peers come from a cluster file or from Kubernetes. If `cnictl watch` runs
    as a service, it follows later changes. Otherwise, run `cnictl apply` after each change.

    For dual-stack pods, give a subnet and a network of each family, and name each peer twice: with its pod CIDR and its
    address of each family.

    \b
    cnictl init-node --subnet 10.244.0.0/24 --network 10.244.0.0/20 --peer 10.244.1.0/24=10.0.10.51
    cnictl init-node --peer 10.244.2.0/24=10.0.2.53
    cnictl init-node --subnet 10.244.0.0/24 --network 10.244.0.0/20 --dry-run
    cnictl init-node --from cluster.toml
    cnictl init-node --subnet 10.244.0.0/24,fd00:244::/64 --network 10.244.0.0/20,fd00:244::/48 \\
      --peer 10.244.1.0/24=10.0.10.51 --peer fd00:244:0:1::/64=fd00:10::51
    """
    ignored = preflight.parse_ignored(ignore or [])
    given = {
        "subnets": addressing.parse_list(subnet or []) or None,
        "networks": addressing.parse_list(network or []) or None,
        "name": name,
        "bridge": bridge,
        "uplink": uplink,
        "mtu": mtu,
        "nat": nat,
        "backend": backend or None,
        "forward": forward,
        "bin_dirs": None if bin_dir is None else tuple(filter(None, addressing.parse_list(bin_dir))),
        "conf_dirs": None if conf_dir is None else tuple(filter(None, addressing.parse_list(conf_dir))),
        "externals": None if external is None else tuple(filter(None, addressing.parse_list(external))),
    }
    named = tuple(peers.parse_peer(text) for text in peer or [])
    values = {key: value for key, value in given.items() if value is not None}
    asked = joining.ask(source, node, unclaimed, converge.known_spec()) if source else None
    set_up = edits.SetUp(asked.values(values) if asked is not None else values, named, prune, replace)
    spec, _ = set_up.spec()
    runtimes.give(spec.bin_dirs, spec.conf_dirs)
    edits.check_links(spec)
    root.require_root("init-node", "makes the bridge, the firewall rules and the routes of this node")
    options = steps.options_of(dry_run, exit_code, force, no_wait, confirm_within)
    terminal = steps.Terminal(output, exit_code)
    with engine.locked_run(options, terminal):
        _init(set_up, asked, options, terminal, ignored)


def _init(
    set_up: edits.SetUp,
    asked: joining.NodeInSource | None,
    options: engine.Options,
    terminal: steps.Terminal,
    ignored: Collection[str],
) -> None:
    spec, chosen = set_up.spec()
    joined = joining.join(spec, asked)
    for note in (*set_up.notes(spec, chosen), *joined.notes()):
        say(note)
    spec = joined.spec
    specs = converge.specs_in_place()
    pods = engine.pods_in_the_way("init-node", specs, spec, options)
    with working("checking this host"):
        findings = preflight.without_ignored(preflight.run(spec, specs[-1] if specs else None), ignored)
    for finding in findings:
        say(_in_words(finding))
    terminal.json_extra = {"findings": [finding.as_json() for finding in findings]}
    try:
        edits.refuse_findings(findings)
    except Problem:
        terminal.report(engine.Report(spine.Plan(()), error="preflight"))
        raise
    terminal.json_extra |= {"node": node_spec.as_data(spec), "peers": chosen.as_json()}
    if options.dry_run:
        engine.preview("init-node", converge.plan(spec).whole, pods, options, terminal)
        return
    accepted = sorted({finding.name for finding in findings if finding.ignored})
    with joining.saved(joined):
        engine.establish("init-node", spec, (), options, terminal, pods, accepted)
    if not specs and (note := boot_note.note()):
        say(note)
    if asked is not None or not specs:
        say(joining.what_next(spec, joined.record))


def _in_words(finding: preflight.PreflightFinding) -> str:
    hint = f"\n  hint: {finding.hint}" if finding.hint else ""
    severity = f"ignored {finding.severity}" if finding.ignored else finding.severity
    return f"{severity} [{finding.name}] {finding.subject}: {finding.message}{hint}"


def apply(
    dry_run: DryRunOption = False,
    exit_code: ExitCodeOption = False,
    force: ForceOption = False,
    no_wait: NoWaitOption = False,
    confirm_within: ConfirmOption = None,
    accept_empty: Annotated[
        bool,
        typer.Option(
            "--accept-empty",
            help="Accept the source's peer list even if this node and most peers are missing from it; remove those "
            "peers' routes.",
        ),
    ] = False,
    output: OutputOption = Format.TABLE,
) -> None:
    """Make this host match /etc/cnictl/node.toml: to repair drift, at boot, or after an edit of the file.

    If the file is unchanged, apply repairs as much drift as it can, even if a part fails. After an edit, a failure
    undoes the whole run, and apply refuses if live pods would lose their network.

    \b
    cnictl apply
    cnictl apply --dry-run --exit-code
    cnictl apply --confirm-within 60
    """
    root.require_root("apply", "changes the host's network")
    if confirm.undid_set_up():  # for example at boot: the undo also removed the unit that runs this command
        say("nothing to apply: this host's set-up was not confirmed, and was undone (cnictl history)")
        if output is Format.JSON:
            nothing, terminal = spine.Plan(()), steps.Terminal(output)
            terminal.preview(nothing) if dry_run else terminal.report(engine.Report(nothing))
        return
    options = steps.options_of(dry_run, exit_code, force, no_wait, confirm_within)

    def asked(spec: node_spec.NodeSpec) -> node_spec.NodeSpec:
        return learning.refreshed(spec, not dry_run, accept_empty)

    engine.edit_node("apply", asked, (), options, steps.Terminal(output, exit_code), reapplies=True)


def plan(
    exit_code: Annotated[
        bool, typer.Option("--exit-code", help="Exit status 0 if nothing would change, 1 if anything would.")
    ] = False,
    output: OutputOption = Format.TABLE,
) -> None:
    """Show how this host differs from /etc/cnictl/node.toml: what `cnictl apply` would change, as a script.

    Nothing is changed. First comes a summary, then each step: what is there (-), what should be (+), and the manual
    commands. Everything else is a comment, so you can paste the whole output into a root shell. It then does what
    `cnictl apply` does, except that no run is recorded. --dry-run of every command prints its changes in the same way.

    \b
    cnictl plan
    cnictl plan --exit-code || echo "this node drifted, or its file was edited"
    cnictl plan -o json | jq -r '.steps[].command // empty'
    """
    root.require_root("plan", "reads the firewall's rules")
    options = engine.Options(dry_run=True, force=True)
    engine.edit_node(
        "plan",
        lambda spec: learning.refreshed(spec, keep=False),
        (),
        options,
        steps.Terminal(output, exit_code),
        reapplies=True,
    )


def reset_node(
    yes: YesOption = False,
    force: ForceOption = False,
    dry_run: DryRunOption = False,
    exit_code: ExitCodeOption = False,
    no_wait: NoWaitOption = False,
    output: OutputOption = Format.TABLE,
) -> None:
    """Remove everything that cnictl made on this host, and restore what it changed.

    Kernel settings get their original values; a bridge or route that was there before stays. reset-node refuses while
    pods live: --force deletes their attachments first. It lists what it will remove, and asks at a terminal.

    If cnictl's files are lost, reset-node still finds its marks: chains CNICTL-*, rules with a comment that begins with
    cnictl:, nftables tables named cnictl, routes of protocol 67 and 68, links with cnictl's alias.

    \b
    cnictl reset-node --dry-run
    cnictl reset-node --yes
    """
    options = steps.options_of(dry_run, exit_code, force, no_wait)
    root.require_root("reset-node", "removes the bridge, the firewall rules and the routes of this node")
    terminal = steps.Terminal(output, exit_code, nothing="nothing to remove: cnictl has nothing on this host")
    shown = reset.plan()
    if dry_run:
        _preview_reset(shown, terminal)
        return
    removals = reset.in_words(shown)
    if removals and not yes:
        say("reset-node will do this:")
        asking.show(removals)
    detached: list[str] = []
    terminal.json_extra = {"detached": detached}
    engine.refuse_reset(shown, options, terminal)
    if removals and not yes:
        if not sys.stdin.isatty():
            raise Problem("reset-node asks before it removes anything, but there is no terminal to ask at", "use --yes")
        asking.confirm("Remove all of this?")
    todo, done = engine.reset_node(None if yes else shown, options, terminal, lambda pod: detached.append(str(pod)))
    terminal.json_extra["left"] = list(todo.left)
    terminal.report(done)
    for pod in detached:
        say(f"deleted the attachment of {pod}")
    for note in todo.left:
        say(note)
    for line in reset.waiting_pods() if detached else ():
        say(line)
    todo.whole.refuse_unknown()


def _preview_reset(todo: reset.Reset, terminal: steps.Terminal) -> None:
    pods = [str(pod) for pod in todo.pods]
    for pod in pods:
        say(f"would delete the attachment of {pod}")
    for note in todo.left:
        say(note)
    terminal.json_extra = {"would_detach": pods, "left": list(todo.left)}
    terminal.preview(todo.whole)
