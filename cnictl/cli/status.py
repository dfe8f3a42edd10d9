"""`cnictl status`: show the node on one screen, and where it differs from node.toml."""

from __future__ import annotations  # a type would execute the module that the loader postpones

import os
import select
import sys
from typing import Annotated, Any

import typer

from cnictl.cli.differences import compact
from cnictl.cli.output import Format, OutputOption, print_json, print_json_line, print_table, say, say_diversions
from cnictl.cli.steps import require_root
from cnictl.node import hint
from cnictl.node.runs import converge, reset
from cnictl.node.spec import node_file
from cnictl.views import source_view
from cnictl.views import status as status_view


def status(
    watch: Annotated[
        bool, typer.Option("--watch", "-w", help="Show the status again every two seconds, until Ctrl-C.")
    ] = False,
    output: OutputOption = Format.TABLE,
) -> None:
    """Show this node: bridge and pods, addresses, rules with their counters, peers, plugin, conf, and drift.

    Exit status 1 if anything differs from /etc/cnictl/node.toml or can't be checked (`cnictl plan` shows the difference
    line by line); if the kernel sends pods' packets elsewhere, for example by a policy rule (ip rule); if a peer
    answers but does not have its pod CIDR or does not forward to it; or if the source of peers contradicts this node.
    A peer that does not answer is shown as silent.

    \b
    cnictl status
    cnictl status --watch
    cnictl status -o json | jq '.resources[] | select(.state == "drifted")'
    """
    require_root("status", "reads the firewall's rules")
    spec = node_file.load()
    if spec is None:
        raise reset.no_node()
    while True:
        shown = status_view.look(spec)
        if watch:
            _clear()
        if output is Format.JSON:
            (print_json_line if watch else print_json)(shown)
        else:
            _show(shown)
        if not watch:
            break
        select.select([], [], [], 2.0)
        spec = converge.current_spec()
    if status_view.has_fault(shown):
        raise typer.Exit(1)


def _clear() -> None:
    if sys.stdout.isatty() and os.environ.get("TERM", "dumb") != "dumb":
        print("\x1b[H\x1b[2J", end="")


_ANSWERS = {True: "answers", False: "silent", None: "not asked"}


def _summary(shown: dict[str, Any]) -> list[tuple[str, str]]:
    """Return the first table: one line for each part of the node."""
    bridge = shown["bridge"]
    lines = [("network", f"{shown['node']['name']}: {', '.join(shown['node']['subnets'])} of "
              f"{', '.join(shown['node']['networks'])}")]  # fmt: skip
    if bridge is None:
        lines.append(("bridge", "missing"))
    else:
        state = "up" if bridge["up"] else "down"
        lines.append(("bridge", f"{bridge['name']} {state}, {' '.join(bridge['addresses'])}, MTU {bridge['mtu']}"))
    used = shown["addresses"]
    lines += [
        ("addresses", f"{ranges['used']} of {ranges['total']} used in {', '.join(ranges['ranges'])}")
        for ranges in used["range_sets"]
    ]
    plugin = shown["plugin"]
    lines.append(("plugin", f"{plugin['version'] or 'missing'} in {', '.join(plugin['folders'])}"))
    if plugin["cnictl_is_newer"]:
        lines.append(("cnictl", f"{plugin['cnictl']}, newer than the plugin: cnictl plugin install puts it into use"))
    for folder, names in shown["confs"].items():
        first = names[0] if names else "none"
        mark = "" if first == shown["conf"] else f", not {shown['conf']}"
        lines.append(("conf", f"{folder}: {first}{mark}"))
    watch = shown["watch"]
    if watch is not None:
        given_up = f", given up: {', '.join(watch['given_up'])}" if watch["given_up"] else ""
        lines.append(("watch", f"runs, {sum(watch['repairs'].values())} repairs{given_up}"))
    if shown["boot"]:
        lines.append(("boot", shown["boot"]))
    if shown["not_kept"]:
        lines.append(("not kept", shown["not_kept"]))
    source = shown["source"]
    if source is not None:
        lines.append(("peers from", source_view.in_words(source)))
    return lines


def _show(shown: dict[str, Any]) -> None:
    bridge, source = shown["bridge"], shown["source"]
    print_table(("", ""), _summary(shown))
    if bridge is not None and bridge["ports"]:
        ports = [(port["name"], "up" if port["up"] else "down", port["pod"] or "not a pod of ours",
                  ", ".join(port["addresses"])) for port in bridge["ports"]]  # fmt: skip
        print_table(("port", "state", "pod", "addresses"), ports)
    if shown["peers"]:
        peers = [
            (
                peer["pod_cidr"],
                peer["via"],
                peer["dev"],
                peer["state"],
                _ANSWERS[peer["answers"]],
                peer["pods"] or "not asked",
            )
            for peer in shown["peers"]
        ]
        print_table(("pod CIDR", "via", "link", "route", "node answers", "pods"), peers)
    if shown["rules"]:
        rules = [(rule["where"], rule["source"], rule["destination"], str(rule["packets"])) for rule in shown["rules"]]
        print_table(("rule", "from", "to", "packets"), rules)
    print_table(("resource", "state", "now", "should be"), [status_cells(row) for row in shown["resources"]])
    for peer in shown["peers"]:
        if peer["fault"]:
            say(f"{peer['fault']}\n  hint: {peer['hint']['text']}")
    if shown["drifted"]:
        apply = hint.command("cnictl apply")
        say(f"{shown['drifted']} of {len(shown['resources'])} drifted; `{apply}` repairs them")
    say_diversions(shown["strays"])
    for words in filter(None, (source["conflict"], source["trouble"]) if source is not None else ()):
        say(f"warning: {words}")


def status_cells(row: dict[str, Any]) -> tuple[str, str, str, str]:
    """Return a row of the table: the resource, its state, and if it drifted, what is there and what should be."""
    now, wanted = row["now"], row["wanted"]
    if row["state"] == "not known":
        return row["resource"], row["state"], row["summary"], ""
    if row["state"] == "ok":
        return row["resource"], row["state"], _short(now), ""
    keys = [key for key in {**(now or {}), **(wanted or {})} if (now or {}).get(key) != (wanted or {}).get(key)]
    seen = "missing" if now is None else _short({key: now[key] for key in keys if key in now}) or "missing"
    due = "absent" if wanted is None else _short({key: wanted[key] for key in keys if key in wanted}) or "absent"
    return row["resource"], row["state"], f"{seen}: other content" if seen == due else seen, due


def _short(state: dict[str, Any] | None) -> str:
    """Return a state's values for one cell; of a file's text, the number of lines."""
    if state is None:
        return ""
    parts = []
    for key, value in state.items():
        shown = f"{len(value.splitlines())} lines" if key == "text" else compact(value)
        if key == "files":
            shown = ", ".join(value)
        if shown:
            parts.append(f"{key} {shown}")
    text = ", ".join(parts).replace("\n", " ")
    return text if len(text) <= 120 else f"{text[:119]}…"
