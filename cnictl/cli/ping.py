"""`cnictl ping`: ping one target from one source, over ICMP, TCP or UDP, and report why it does not answer."""

from __future__ import annotations  # a type would execute the module that the loader postpones

from typing import Annotated

import typer

from cnictl.cli import root
from cnictl.cli.output import Format, OutputOption, pause, print_hanging, print_json, say, working, write
from cnictl.core import errors
from cnictl.probe import packet_path, ping_words, pinging, pods, request, resolvers, trace


def ping(
    source: Annotated[
        str,
        typer.Argument(
            metavar="FROM",
            help="Where from: host, a pod of this node by name, namespace/name, container id or address, "
            "pod (a new probe pod), or a network namespace by its path.",
        ),
    ],
    to: Annotated[
        str,
        typer.Argument(
            metavar="TO",
            help="Where to: as FROM, or external, a peer's name, an address, a DNS name, a Service's address. "
            "TO:PORT is TCP, TO:PORT/udp is UDP; put an IPv6 address with a port in brackets.",
        ),
    ],
    count: Annotated[
        int, typer.Option("--count", "-c", metavar="COUNT", min=1, max=65535, help="How many requests.")
    ] = 3,
    interval: Annotated[
        float,
        typer.Option("--interval", "-i", metavar="SECONDS", min=0.01, max=3600, help="Time between two requests."),
    ] = 0.5,
    timeout: Annotated[
        float, typer.Option("--timeout", "-W", metavar="SECONDS", min=0.05, max=60, help="How long to wait for each.")
    ] = 1.0,
    size: Annotated[
        int | None,
        typer.Option(
            "--size",
            metavar="BYTES",
            min=pinging.SMALLEST_PACKET,
            max=pinging.LARGEST_PACKET,
            help="Bytes of each IP packet, which is not fragmented: shows the path MTU. Not for TCP. "
            "Without it, packets have their usual size.",
        ),
    ] = None,
    ipv4: Annotated[bool, typer.Option("-4", help="Only IPv4.")] = False,
    ipv6: Annotated[bool, typer.Option("-6", help="Only IPv6.")] = False,
    traced: Annotated[
        bool, typer.Option("--trace", help="Send one more request, and list the rules and routes that it meets.")
    ] = False,
    output: OutputOption = Format.TABLE,
) -> None:
    """Ping a target from this host or a pod, over ICMP, TCP or UDP, and name the cause if it does not answer.

    Each answer is shown as it comes, then a summary of losses and times. On a failure cnictl examines routes, firewall,
    neighbours, MTU and the peer, as test-connectivity does. In TCP, a connection that opens is an answer, and a refused
    one is a failure. In UDP, the refusal of a closed port counts as an answer, because it shows that packets pass both
    ways. Exit status 0 if every request was answered, 1 if any was not. Ctrl-C ends the requests and shows the summary.

    \b
      cnictl ping web external                     # from pod web to an outside host
      cnictl ping default/web 10.96.0.1:443        # TCP, to a Service
      cnictl ping web db.example:53/udp --trace    # UDP; the rules that it meets
      cnictl ping host node-b --size 1500          # does a packet of 1500 bytes pass?
      cnictl ping pod web:80 -o json
    """
    if ipv4 and ipv6:
        raise errors.UsageProblem("-4 and -6 exclude each other")
    options = pinging.Options(count, interval, timeout, size or 0, ipv6 if ipv4 or ipv6 else None)
    pinging.check(to, options)
    root.require_root("ping", "opens raw sockets and enters the network namespaces of pods")
    for name in pods.sweep():
        say(f"cleaned up {name}, which an earlier run left behind")
    trace.sweep()
    with pinging.between(source, to, options, lambda: request.chain_of("", [])) as run:
        served = _shown(run, traced, output)
    if not served:
        raise typer.Exit(1)


def _shown(run: pinging.Run, traced: bool, output: Format) -> bool:
    """Send the requests, show their outcomes, and return whether all were answered."""
    own = run.source.source(run.to.address, run.to.scope)
    lines = output is not Format.JSON
    if lines:
        _say_ends(run, own)
    interrupted = False
    try:
        run.send(lambda answer: write(ping_words.line(answer, run.options.timeout), flush=True) if lines else pause(0))
    except KeyboardInterrupt:
        interrupted = True
    if lines:
        for line in ping_words.summary(run.to, run.answers):
            write(line)
    path = _followed(run) if traced and not interrupted else None
    if lines and path is not None:
        _say_path(path)
    cause = None
    if not run.served and run.answers and not interrupted:
        with working("looking for the cause") as tell:
            cause = run.cause(tell)
    if not lines:
        print_json(ping_words.as_json(run.source, own, run.to, run.answers, run.served, cause, path))
    elif cause is not None:
        print_hanging("cause: ", cause.words)
        if cause.hint.command:
            write(f"  hint: {cause.hint}")  # to copy
        elif cause.hint:
            print_hanging("  hint: ", cause.hint)
    elif note := ping_words.note(run.to, run.answers):
        write(note)
    return run.served


def _say_ends(run: pinging.Run, own: str) -> None:
    if run.to.resolved is not None:
        write(ping_words.resolved(run.to, resolvers.resolver_of(run.source.pod.netns).source))
    write(ping_words.heading(run.source, own, run.to, run.options.size))


def _followed(run: pinging.Run) -> list[packet_path.Step]:
    try:
        with working("tracing one request"):
            return run.follow()
    except errors.Problem as problem:
        say(f"--trace: {problem.message}" + (f" ({problem.hint})" if problem.hint else ""))
        return []


def _say_path(path: list[packet_path.Step]) -> None:
    if path:
        write("one more request, step by step:")
        for step, (lead, what) in zip(path, ping_words.path_lines(path), strict=True):
            print_hanging(lead, what, "bold red" if step.drops else "")
