"""`cnictl ipam check`: judge every address that is held, with the evidence."""

from typing import Annotated, Any

import typer

from cnictl.cli.ipam import DataDirOption, NameOption, observe
from cnictl.cli.output import Format, ListOption, print_items, print_list, say
from cnictl.cli.renamed import FormerNetworkOption
from cnictl.core.counted import counted
from cnictl.node.spec import node_file
from cnictl.probe import wire


def check(
    name: NameOption = "",
    former: FormerNetworkOption = "",
    data_dir: DataDirOption = "",
    no_wire: Annotated[
        bool, typer.Option("--no-wire", help="Don't ask on the bridge who answers for each address.")
    ] = False,
    output: ListOption = Format.TABLE,
) -> None:
    """Check every leased address: live, stale boot, namespace gone, torn, seen twice. Find those held without a lease.

    The evidence for each is the boot it is from, its veth and namespace, and who answers for it on the bridge (ARP, or
    IPv6 neighbour discovery). The command changes nothing: `cnictl ipam gc` frees what is proven stale. Exit status 1
    on problems, or if the node's bridge is missing.

    \b
      cnictl ipam check
      cnictl ipam check -o json | jq '.items[] | select(.problem)'
    """
    listing = observe(name or former, data_dir, "ipam check")
    checked, unasked = wire.check_on(listing, None if no_wire else node_file.load())
    rows = [_row(address) for address in checked]
    if output is Format.JSON:
        print_items(rows)
    elif rows:
        columns = ("address", "pod", "found", "evidence")
        cells = [tuple(str(row[column]) for column in columns) for row in rows]
        print_list(output, columns, cells, (row["address"] for row in rows))
    problems = sum(row["problem"] for row in rows)
    if output is not Format.JSON:
        say(f"{counted(len(rows), 'address')}, {problems} with a problem")
    for reason in unasked:
        say(f"could not query the bridge ({reason}); run `cnictl apply`, or use --no-wire to skip this check")
    if problems or unasked:
        raise typer.Exit(1)


def _row(checked: wire.Checked) -> dict[str, Any]:
    row = checked.row
    return {
        "address": row.address,
        "pod": row.pod or f"{row.container[:13]} {row.ifname}".strip(),
        "found": checked.verdict,
        "evidence": checked.evidence,
        "problem": checked.verdict in wire.PROBLEMS,
    }
