"""`cnictl support-bundle`: collect in one file what others need to see to help."""

import socket
from typing import Annotated

import typer

from cnictl.cli.output import Format, OutputOption, print_items, print_table, say, working
from cnictl.cli.root import require_root
from cnictl.node.plugin import output_file
from cnictl.views.support_bundle import parts as collect
from cnictl.views.support_bundle import write


def support_bundle(
    file: Annotated[
        str, typer.Argument(metavar="[FILE]", help="Default: cnictl-support-HOST.tar.gz in this folder.")
    ] = "",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only list what the bundle would contain.")] = False,
    output: OutputOption = Format.TABLE,
) -> None:
    """Write one tar.gz for those who help you: plan, doctor, rules, routes, links, leases, logs, versions.

    The bundle contains only what is known to be harmless: addresses, names of links and pods, rules, routes, versions,
    messages. It leaves out everything else, such as unknown keys, comments and arguments. Only root can read it;
    MANIFEST.json inside lists its parts.

    \b
    cnictl support-bundle
    cnictl support-bundle --dry-run
    """
    parts = collect()
    if dry_run:
        rows = [{"name": part.name, "holds": part.holds} for part in parts]
        if output is Format.JSON:
            print_items(rows, {"file": None})
        else:
            print_table(("file", "holds"), [(row["name"], row["holds"]) for row in rows])
        return
    require_root("support-bundle", "reads rules and records")
    path = file or f"cnictl-support-{socket.gethostname()}.tar.gz"
    with working("collecting the parts"):
        written_parts = write(path, parts)
    if output_file.is_stdout(path):
        return
    if output is Format.JSON:
        print_items(written_parts, {"file": path})
        return
    cells = [
        (row["name"], row["holds"], f"failed: {row['failed']}" if row["failed"] else str(row["bytes"]))
        for row in written_parts
    ]
    print_table(("file", "holds", "bytes"), cells)
    say(f"written: {path}")
