"""`cnictl logs`: what the plugin was called for, and what came of it."""

from typing import Annotated

import typer

from cnictl.cli.output import Format, OutputOption, plain, print_items, print_json_line, print_table, say
from cnictl.core.errors import UsageProblem
from cnictl.node.host import plugin_log
from cnictl.node.host.plugin_log import Call
from cnictl.node.spec import node_file


def logs(
    who: Annotated[str, typer.Argument(metavar="[WHO]", help="A pod, container or address; default: all.")] = "",
    verb: Annotated[str, typer.Option(metavar="VERB", help="ADD, DEL, CHECK, GC or STATUS alone.")] = "",
    failed: Annotated[bool, typer.Option("--failed", help="Calls that failed alone.")] = False,
    lines: Annotated[int, typer.Option("--lines", "-n", min=0, help="How many of the latest calls.")] = 20,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on with each further call, until Ctrl-C.")] = False,
    output: OutputOption = Format.TABLE,
) -> None:
    """Show the plugin's latest calls, oldest first: verb, pod, address, duration, and the error of one that failed.

    WHO is a pod as NAMESPACE/NAME or NAME, the beginning of a container's id, or an address. With -o json and
    --follow each call is a JSON document on a line of its own.

    \b
    cnictl logs --failed
    cnictl logs default/web -f
    cnictl logs --verb ADD -n 100 -o json | jq '.items[].milliseconds'
    """
    verbs = ("ADD", "DEL", "CHECK", "GC", "STATUS", "VERSION")
    if verb and verb.upper() not in verbs:
        raise UsageProblem(f"--verb {verb}: no verb of CNI", f"one of {', '.join(verbs)}")

    def wanted(call: Call) -> bool:
        return (not who or call.is_of(who)) and verb.upper() in ("", call.verb) and (call.failed or not failed)

    path = plugin_log.path_of(node_file.load())
    found = [call for call in plugin_log.calls(path) if wanted(call)][-lines:] if lines else []
    if output is Format.JSON and not follow:
        print_items(vars(call) for call in found)
        return
    if not found and not follow:
        say(f"no such call in {path}")
    if output is Format.JSON:
        for call in found:
            print_json_line(vars(call))
    elif found:
        print_table(("time", "verb", "pod", "address", "ms", "outcome"), [_cells(call) for call in found])
    if follow:
        for call in filter(wanted, plugin_log.follow(path)):
            if output is Format.JSON:
                print_json_line(vars(call))
            else:
                print("  ".join(map(plain, _cells(call))), flush=True)


def _cells(call: Call) -> tuple[str, ...]:
    who = call.pod or f"{call.container[:13]} {call.ifname}".strip()
    return call.time, call.verb, who, call.address, f"{call.milliseconds:.0f}", call.outcome
