"""`cnictl node`: the cluster's nodes as this one knows them."""

from typing import Any

import typer

from cnictl.cli import root
from cnictl.cli.output import Format, ListOption, print_items, print_list, print_names, say
from cnictl.node.reach.accept import ABSENT
from cnictl.node.runs import converge
from cnictl.views import nodes, source_view


def list_nodes(output: ListOption = Format.TABLE) -> None:
    """List the nodes that this node's source of peers knows: for each its state, and whether it answers.

    The states are: routed; pending (no pod CIDR yet); refused (with the reason); conflict (the source contradicts this
    node); absent (the source does not list this node). A peer of node.toml has no name and is listed by its pod CIDR.
    The first line says what the source is, and how old its last list is. Exit status 1 if the source can't be asked, if
    a node is refused or absent, or on a conflict.

    \b
    cnictl node list
    cnictl node list -o json | jq '.items[] | select(.state == "refused")'
    """
    root.require_root("node list", "asks the other nodes over packet sockets")
    shown = nodes.listed(converge.current_spec())
    source = shown["source"]
    if output is Format.JSON:
        print_items(shown["items"], {"source": source})
    elif output is Format.NAME:
        print_names(nodes.name_of(row) for row in shown["items"])
    else:
        _show(shown["items"], source, output)
    raise typer.Exit(int(nodes.has_fault(shown)))


def _show(rows: list[dict[str, Any]], source: dict[str, Any], output: Format) -> None:
    print(f"source: {source_view.in_words(source)}")
    print_list(
        output,
        ("name", "address", "pod CIDR", "state", "route", "answers", "since", "why", "link"),
        [
            (
                "(this node)" if row["state"] == ABSENT and not row["name"] else nodes.name_of(row),
                row["address"] or "-",
                row["pod_cidr"] or "-",
                row["state"],
                row["route"] or "-",
                {True: "yes", False: "no", None: "-"}[row["answers"]],
                source_view.clock(row["since"]) if row["since"] else "-",
                row["why"] or ("named in node.toml" if row.get("static") else "-"),
                row["dev"] or "-",
            )
            for row in rows
        ],
        (),
        more=1,
    )
    for words in (source["conflict"], source["trouble"]):
        if words:
            say(f"warning: {words}")
