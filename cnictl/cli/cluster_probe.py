"""`cnictl cluster-probe`: what `cnictl cluster test` starts on every host. No person types it."""

import sys
from typing import Annotated

import typer

from cnictl.cli.output import say
from cnictl.cli.steps import require_root
from cnictl.node.runs import converge
from cnictl.probe import pair_service, pods, request, trace


def cluster_probe(
    duration: Annotated[str, typer.Option("--for", metavar="DURATION", help="How long to stay at most.")] = "10m",
    conf: Annotated[str, typer.Option(metavar="FILE", help="The CNI conf to make the probe pod by.")] = "",
    bin_dir: Annotated[
        list[str] | None, typer.Option(metavar="FOLDER", help="Where its plugins are; may be repeated.")
    ] = None,
) -> None:
    """Internal: the host's side of `cnictl cluster test`, over stdin and stdout.

    A probe pod is made through the installed plugin. It pings the pods and nodes that stdin names, and notes the
    source of each echo request that reaches it. The pod is removed at the end of stdin, at a signal, or after a time.
    """
    seconds = request.seconds(duration)
    spec = converge.current_spec()
    require_root("cluster-probe", "makes a pod and enters its network namespace")
    for name in pods.sweep():
        say(f"cleaned up {name}, which an earlier run left")
    trace.clean()
    try:
        pair_service.serve(spec, request.chain_of(conf, bin_dir or []), seconds, _write, lambda _: None)
    except KeyboardInterrupt:
        return


def _write(line: str) -> None:
    sys.stdout.write(line)
    sys.stdout.flush()
