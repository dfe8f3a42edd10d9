"""`cnictl cluster test`: the matrix of all hosts as a table, with the cause of each failed pair below it."""

from __future__ import annotations  # a type would execute the module that the loader postpones

import secrets
import time
from collections.abc import Sequence
from typing import Annotated

import typer

from cnictl.cli.cluster import FileOption, LimitOption
from cnictl.cli.output import Format, OutputOption, print_json, print_lines, print_table, say, working, write
from cnictl.cluster import inventory, matrix_run, picture
from cnictl.cluster import matrix as cluster_matrix
from cnictl.cluster import transport as cluster_transport
from cnictl.core.errors import UsageProblem
from cnictl.node.spec import addressing

FullOption = Annotated[bool, typer.Option("--full", help="Test every pair of more than 16 hosts too, not a sample.")]
SeedOption = Annotated[
    int | None,
    typer.Option(
        "--seed", metavar="NUMBER", min=0, help="Use the sample of an earlier test: the seed that it printed."
    ),
]


def test(
    file: FileOption = "",
    limit: LimitOption = None,
    full: FullOption = False,
    seed: SeedOption = None,
    external: Annotated[
        list[str] | None,
        typer.Option(
            metavar="ADDRESS",
            help="Address outside that each host's pod pings, one for each family. Default: as test-connectivity on "
            "that host.",
        ),
    ] = None,
    output: OutputOption = Format.TABLE,
) -> None:
    """Ping between probe pods on all hosts, and name the cause of each failure and its host.

    All hosts are tested at the same time over ssh, every pair in both directions. The receiving pod reports the source
    address of each ping, which proves that pods see each other's own addresses. Each host also pings the others' pods
    itself, and its pod pings the other hosts and an outside host. With more than 16 hosts, a sample of pairs is tested.
    Exit status 1 if a pair failed or a host was not reached.

    \b
    cnictl cluster test
    cnictl cluster test -f cluster.toml --limit node1,node2
    """
    known = inventory.read(file)
    nodes = known.limited(limit or [])
    externals = addressing.parse_externals(external or [], known.cluster.networks)
    if len(nodes) < 2:
        raise UsageProblem(
            f"cluster test pings between hosts, but {nodes[0].name} is the only one here",
            f"cnictl test-connectivity on {nodes[0].name} tests one host",
        )
    with inventory.hosts(nodes) as hosts:
        run(hosts.names, hosts, full, seed, output, externals)


def run(
    hosts: Sequence[str],
    transport: cluster_transport.Transport,
    full: bool = False,
    seed: int | None = None,
    output: Format = Format.TABLE,
    externals: tuple[str, ...] = (),
) -> None:
    """Test these hosts over `transport` and show the matrix. Exit status 1 unless it passed."""
    start = time.monotonic()
    with working() as tell:
        chosen = secrets.randbelow(10_000) if seed is None else seed
        matrix = matrix_run.run(hosts, transport, tell, full, chosen, externals=externals)
    seconds = time.monotonic() - start
    if output is Format.JSON:
        print_json(matrix.as_json(seconds))
    else:
        show(matrix, seconds)
    if not matrix.passed:
        raise typer.Exit(1)


def show(matrix: cluster_matrix.Matrix, seconds: float) -> None:
    """Print a matrix, and the cause of each failure."""
    write(picture.heading(matrix))
    columns, rows = picture.rows(matrix)
    if rows:
        print_table(columns, rows)
    for words, hint in picture.causes(matrix):
        print_lines([("bold red", f"✘ {words}"), *([("cyan", f"    hint: {hint}")] if hint else [])])
    for note in matrix.notes:
        say(note)
    say(picture.verdict(matrix, seconds))
