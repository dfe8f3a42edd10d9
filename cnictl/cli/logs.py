"""`cnictl logs`: show the plugin's calls and their outcomes."""

import sys
from typing import Annotated

import typer

from cnictl.cli.output import (
    Format,
    ListOption,
    pause,
    plain,
    print_items,
    print_json_line,
    print_list,
    print_names,
    say,
)
from cnictl.core.errors import UsageProblem
from cnictl.node.host import plugin_log
from cnictl.node.host.plugin_log import Call
from cnictl.node.spec import node_file


def logs(
    who: Annotated[
        str, typer.Argument(metavar="[POD]", help="A pod by its address, name or container id. Default: all.")
    ] = "",
    verb: Annotated[
        str, typer.Option(metavar="VERB", help="Only these calls: ADD, DEL, CHECK, GC, STATUS or VERSION.")
    ] = "",
    failed: Annotated[bool, typer.Option("--failed", help="Only calls that failed.")] = False,
    probes: Annotated[
        bool, typer.Option("--probes", help="Also the probe pods of test-connectivity, ping and cluster test.")
    ] = False,
    lines: Annotated[int, typer.Option("--lines", "-n", metavar="COUNT", min=0, help="How many calls.")] = 20,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Also show each new call, until Ctrl-C.")] = False,
    output: ListOption = Format.TABLE,
) -> None:
    """Show the plugin's latest calls, oldest first: verb, pod, address, duration, and the error if a call failed.

    POD is an address, a pod's NAMESPACE/NAME or NAME, or the beginning of a container's id. With -o json and --follow,
    each call is a JSON document on a line of its own. The probe pods of cnictl's own tests are left out, unless
    --probes is given or POD names one.

    \b
    cnictl logs --failed
    cnictl logs default/web -f
    cnictl logs --verb ADD -n 100 -o json | jq '.items[].milliseconds'
    """
    verbs = ("ADD", "DEL", "CHECK", "GC", "STATUS", "VERSION")
    if verb and verb.upper() not in verbs:
        raise UsageProblem(f"--verb {verb}: not a CNI verb", f"the verbs are {', '.join(verbs)}")

    def wanted(call: Call) -> bool:
        of_pod = call.is_of(who) if who else probes or not call.of_probe
        return of_pod and verb.upper() in ("", call.verb) and (call.failed or not failed)

    path = plugin_log.path_of(node_file.load())
    past_calls = [call for call in plugin_log.calls(path) if wanted(call)][-lines:] if lines else []
    if output is Format.JSON and not follow:
        print_items(vars(call) for call in past_calls)
        return
    if not past_calls and not follow:
        say(f"{path} has no such call")
    if output is Format.JSON:
        for call in past_calls:
            print_json_line(vars(call))
    elif past_calls:
        columns = ("time", "verb", "pod", "address", "ms", "outcome", "container", "interface")
        rows = [(*_cells(call), call.container, call.ifname) for call in past_calls]
        print_list(output, columns, rows, map(_name, past_calls), more=2)
    if follow:
        for call in filter(wanted, plugin_log.follow(path, pause)):
            if output is Format.JSON:
                print_json_line(vars(call))
            elif output is Format.NAME:
                print_names([_name(call)])
                sys.stdout.flush()
            else:
                print("  ".join(map(plain, _cells(call))), flush=True)


def _name(call: Call) -> str:
    return call.pod or call.container


def _cells(call: Call) -> tuple[str, ...]:
    who = call.pod or f"{call.container[:13]} {call.ifname}".strip()
    return call.time, call.verb, who, call.address, f"{call.milliseconds:.0f}", call.outcome
