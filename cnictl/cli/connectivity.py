"""`cnictl test-connectivity`: show what a pod of this node reaches, and why it fails to reach the rest."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Annotated

import typer

from cnictl.cli import connectivity_watch, reports
from cnictl.cli.output import Format, OutputOption, Progress, print_json, print_json_line, say, working
from cnictl.cli.root import require_root
from cnictl.core.errors import UsageProblem
from cnictl.node.spec.node_spec import is_ipv6
from cnictl.probe import pods, request, trace
from cnictl.probe.cells import names
from cnictl.probe.cells.mapped_before import REASON, mapped_before
from cnictl.probe.cells.round import Round, run_round
from cnictl.probe.chain import Chain
from cnictl.probe.checks import FAILED, Report
from cnictl.probe.existing import existing_pod, neighbour_of
from cnictl.probe.icmp import echo_socket
from cnictl.probe.pods import CheckedPod, answer, probe_pods
from cnictl.probe.ports import SERVED_PORT, Listener
from cnictl.probe.request import Request


def test_connectivity(
    pod: Annotated[
        list[str] | None,
        typer.Option(
            metavar="POD", help="Ping this pod: on this host by any name, on another by its address. Repeatable."
        ),
    ] = None,
    external: Annotated[
        list[str] | None,
        typer.Option(
            metavar="ADDRESS",
            help="Address outside to ping, one for each family. Default: node.toml's, else 1.1.1.1 and, with an IPv6 "
            "route, 2606:4700:4700::1111.",
        ),
    ] = None,
    source: Annotated[
        str, typer.Option("--from", metavar="POD", help="Check from this pod instead of a probe pod.")
    ] = "",
    serve: Annotated[
        bool, typer.Option("--serve", help="Run a pod that another host can ping; check nothing.")
    ] = False,
    duration: Annotated[
        str, typer.Option("--for", metavar="DURATION", help="How long to serve: 90s, 10m, 1h.")
    ] = request.SERVED,
    peer: Annotated[
        list[str] | None,
        typer.Option(metavar="PEER", help="Also check this peer, as CIDR=VIA[%LINK]. Repeatable."),
    ] = None,
    count: Annotated[int, typer.Option(metavar="COUNT", min=1, max=100, help="Echo requests for each check.")] = 3,
    timeout: Annotated[
        float, typer.Option(metavar="SECONDS", min=0.05, max=60, help="How long to wait for each answer.")
    ] = 1.0,
    only: Annotated[
        list[str] | None,
        typer.Option(metavar="CHECK", help=f"Run only this check. Repeatable. Checks: {', '.join(names.ALL)}."),
    ] = None,
    skip: Annotated[list[str] | None, typer.Option(metavar="CHECK", help="Leave out this check. Repeatable.")] = None,
    watch: Annotated[
        bool, typer.Option("--watch", "-w", help="Check again and again until Ctrl-C, and show what changes.")
    ] = False,
    interval: Annotated[
        float, typer.Option(metavar="SECONDS", min=0.2, max=86400, help="With --watch: the time between two rounds.")
    ] = connectivity_watch.INTERVAL,
    conf: Annotated[
        str, typer.Option(metavar="FILE", help="The CNI conf for the probe pods. Default: this node's.")
    ] = "",
    bin_dir: Annotated[
        list[str] | None, typer.Option(metavar="FOLDER", help="Where the conf's plugins are. Repeatable.")
    ] = None,
    output: OutputOption = Format.TABLE,
) -> None:
    """Try from a pod everything that a pod should reach, and name the cause of each failure.

    The installed plugin makes two short-lived pods, as it would for a runtime, except that it repairs neither the
    node's masquerade rules nor its bridge: such a fault is reported. The first pings this host, the second pod, each
    peer, a pod on each peer, and an outside host, in each address family of the node. Further checks try TCP and
    UDP, the pod's DNS servers, a Service, a port of this host that is mapped to the second pod (from here, from the
    first pod, and from itself: hairpin), the path MTU, and IPv6. A check that can't apply is skipped with the reason.

    For each failure, cnictl examines routes, forwarding, firewall, neighbours, masquerade and the peer, and prints the
    command that fixes it. Exit status 1 if a check fails; with --watch, that of the last round.

    Name a pod on the other host. Without one, only the other host's gateway is pinged, and it answers even if the
    firewall there drops forwarded packets:

    \b
      other host$ cnictl test-connectivity --serve
      10.244.1.7
      this host$  cnictl test-connectivity --pod 10.244.1.7
      this host$  cnictl test-connectivity --from 10.244.0.12     # from a running pod
      this host$  cnictl test-connectivity --only tcp --only dns --watch
    """
    seconds = request.seconds(duration)
    of_checks: dict[str, object] = {
        "--pod": pod, "--external": external, "--from": source, "--peer": peer, "--only": only, "--skip": skip,
        "--watch": watch,
    }  # fmt: skip
    request.refuse_ineffective(serve, duration, of_checks)
    if interval != connectivity_watch.INTERVAL and not watch:
        raise UsageProblem("--interval has no effect: --watch is not given")
    chosen = names.choose(only or [], skip or [])
    asked = request.parse(pod or [], external or [], peer or [], count, timeout)
    require_root("test-connectivity", "enters the network namespaces of pods")
    for name in pods.sweep():
        say(f"cleaned up {name}, which an earlier run left behind")
    if serve:
        _serve(request.chain_of(conf, bin_dir or []), seconds, output)
        return
    trace.sweep()
    chain = None if source else request.chain_of(conf, bin_dir or [])
    with working() as tell:
        pods_to_check = _checked_pods(asked, chosen, bool(only), source, chain, tell)
        if watch:
            with connectivity_watch.until_interrupted() as last_round, pods_to_check as pair:
                connectivity_watch.follow(pair.run, interval, output, last_round, tell, reports.show)
            report = last_round.result
        else:
            with pods_to_check as pair:
                report = pair.run()
                tell("removing the pods")
    if not watch and output is Format.JSON:
        print_json(report.as_json())
    elif not watch:
        reports.show(report)
    if report.overall == FAILED:
        raise typer.Exit(1)


@dataclass(frozen=True)
class _PodPair:
    """The pod to check from, a second pod, and how to run the checks."""

    round: Round
    pod: CheckedPod
    other: CheckedPod | None
    tell: Progress

    def run(self) -> Report:
        return run_round(self.round, self.pod, self.other, self.tell)


@contextmanager
def _checked_pods(
    asked: Request, chosen: frozenset[str], named: bool, source: str, chain: Chain | None, tell: Progress
) -> Iterator[_PodPair]:
    """Yield the pods to check: a running pod and its neighbour, else two probe pods made by `chain`.

    `named`: the operator named the chosen checks.
    """
    if chain is None:
        pod = existing_pod(source)
        without = "--from checks a running pod, and only a probe pod gets a mapped port"
        yield _PodPair(Round(asked.spec, asked.wanted, chosen, without), pod, neighbour_of(pod, asked.spec.name), tell)
        return
    without = _without_mapping(chain, chosen, named)
    tell(f"making two pods through {' → '.join(chain.types)}")
    with probe_pods(chain, 2, mapped=not without) as (first, second):
        yield _PodPair(Round(asked.spec, asked.wanted, chosen, without), first, second, tell)


def _without_mapping(chain: Chain, chosen: frozenset[str], named: bool) -> str:
    """Return why no port of this host is mapped to a probe pod; empty if one is to be mapped."""
    wanted = [name for name in (names.HOST_PORT, names.HAIRPIN) if name in chosen]
    if not wanted:
        return "no check of a mapped port is chosen"
    if not chain.maps_ports:
        return f"no plugin of the conf maps ports (capability portMappings): {' → '.join(chain.types)}"
    return "" if named or mapped_before() else REASON.format(wanted[0])


def _serve(chain: Chain, seconds: float, output: Format) -> None:
    """Run one pod until the time is up or a signal comes; print its addresses on stdout, and who pings it on stderr."""
    try:
        with probe_pods(chain, 1) as (pod,), ExitStack() as stack:
            families = dict.fromkeys(map(is_ipv6, pod.addresses))
            receivers = [stack.enter_context(echo_socket(pod.netns, ipv6)) for ipv6 in families]
            listeners = [Listener(pod.netns, address, SERVED_PORT) for address in pod.addresses]
            for listener in listeners:
                stack.callback(listener.close)
            both = {"address": pod.address, "addresses": list(pod.addresses)}
            if output is Format.JSON:
                print_json_line({**both, "pod": pod.name, "netns": pod.netns, "seconds": seconds})
            else:
                print("\n".join(pod.addresses), flush=True)
            say(f"pod {' '.join(pod.addresses)} answers for {seconds:g} s; Ctrl-C ends it")
            for source in answer(pod, seconds, receivers, listeners):
                say(f"pinged by {source}")
    except KeyboardInterrupt:
        return
