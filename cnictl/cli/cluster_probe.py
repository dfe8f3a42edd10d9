"""`cnictl cluster-probe`: the command that `cnictl cluster test` starts on every host."""

import sys
from typing import Annotated

import typer

from cnictl.cli.output import say
from cnictl.cli.root import require_root
from cnictl.node.runs import converge
from cnictl.probe import pair_service, pods, request, trace


def cluster_probe(
    duration: Annotated[str, typer.Option("--for", metavar="DURATION", help="How long to run at most.")] = "10m",
    conf: Annotated[str, typer.Option(metavar="FILE", help="The CNI conf for the probe pod.")] = "",
    bin_dir: Annotated[
        list[str] | None, typer.Option(metavar="FOLDER", help="Where the conf's plugins are. Repeatable.")
    ] = None,
) -> None:
    """Internal: the host's side of `cnictl cluster test`, over stdin and stdout.

    It makes a probe pod through the installed plugin. The pod pings the pods and nodes that stdin names, and records
    the source of each echo request that reaches it. The pod is removed at the end of stdin, at a signal, or after the
    time that --for gives.
    """
    seconds = request.seconds(duration)
    spec = converge.current_spec()
    require_root("cluster-probe", "makes a pod and enters its network namespace")
    for name in pods.sweep():
        say(f"cleaned up {name}, which an earlier run left behind")
    trace.sweep()
    try:
        pair_service.serve(spec, request.chain_of(conf, bin_dir or []), seconds, _write, lambda _: None)
    except KeyboardInterrupt:
        return


def _write(line: str) -> None:
    sys.stdout.write(line)
    sys.stdout.flush()
