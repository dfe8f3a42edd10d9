"""`cnictl test-connectivity`: show what a pod of this node reaches, and why it fails to reach the rest."""

from contextlib import ExitStack
from typing import Annotated

import typer

from cnictl.cli import reports
from cnictl.cli.output import Format, OutputOption, print_json, print_json_line, say, working
from cnictl.cli.steps import require_root
from cnictl.node.spec.node_spec import is_ipv6
from cnictl.probe import pods, request, trace
from cnictl.probe.chain import Chain
from cnictl.probe.checks import Report, run_checks
from cnictl.probe.existing import existing_pod, neighbour_of
from cnictl.probe.icmp import echo_socket
from cnictl.probe.pods import answer, probe_pods
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
        typer.Option(metavar="ADDRESS", help="Address outside to ping, such as 1.1.1.1. One for each family."),
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
    conf: Annotated[
        str, typer.Option(metavar="FILE", help="The CNI conf for the probe pods. Default: this node's.")
    ] = "",
    bin_dir: Annotated[
        list[str] | None, typer.Option(metavar="FOLDER", help="Where the conf's plugins are. Repeatable.")
    ] = None,
    output: OutputOption = Format.TABLE,
) -> None:
    """Ping from a pod everything that a pod should reach, and name the cause of each failure.

    The installed plugin makes two short-lived pods, as it would for a runtime. The first pings this host, the second
    pod, each peer, a pod on each peer, and the outside, in each address family of the node. For each failure, cnictl
    examines routes, forwarding, firewall, neighbours, masquerade and the peer, and prints the command that fixes it.
    Exit status 1 if a check fails.

    Name a pod on the other host. Without one, only the other host's gateway is pinged, and it answers even if the
    firewall there drops forwarded packets:

    \b
      other host$ cnictl test-connectivity --serve
      10.244.1.7
      this host$  cnictl test-connectivity --pod 10.244.1.7
      this host$  cnictl test-connectivity --from 10.244.0.12     # from a running pod
    """
    seconds = request.seconds(duration)
    of_checks: dict[str, object] = {"--pod": pod, "--external": external, "--from": source, "--peer": peer}
    request.refuse_ineffective(serve, duration, of_checks)
    asked = request.parse(pod or [], external or [], peer or [], count, timeout)
    require_root("test-connectivity", "enters the network namespaces of pods")
    for name in pods.sweep():
        say(f"cleaned up {name}, which an earlier run left")
    if serve:
        _serve(request.chain_of(conf, bin_dir or []), seconds, output)
        return
    trace.sweep()
    report = _from_pod(asked, source) if source else _from_probe(asked, request.chain_of(conf, bin_dir or []))
    if output is Format.JSON:
        print_json(report.as_json())
    else:
        reports.show(report)
    if report.overall == "failed":
        raise typer.Exit(1)


def _from_pod(asked: Request, text: str) -> Report:
    pod = existing_pod(text)
    with working() as tell:
        return run_checks(asked.spec, pod, neighbour_of(pod, asked.spec.name), asked.wanted, tell)


def _from_probe(asked: Request, chain: Chain) -> Report:
    with working(f"making two pods through {' → '.join(chain.types)}") as tell:
        with probe_pods(chain, 2) as (first, second):
            report = run_checks(asked.spec, first, second, asked.wanted, tell)
            tell("removing the pods")
        return report


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
