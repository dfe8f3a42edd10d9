"""`cnictl metrics`: the node in numbers, for Prometheus."""

from typing import Annotated

import typer

from cnictl.cli.steps import require_root
from cnictl.core.errors import UsageProblem
from cnictl.node.plugin import output_file
from cnictl.views import metric_families


def metrics(
    textfile: Annotated[
        str, typer.Option(metavar="FILE", help="Write to this file, for node_exporter's textfile collector.")
    ] = "",
    no_doctor: Annotated[
        bool, typer.Option("--no-doctor", help="Leave out doctor's findings, so that no packet is sent.")
    ] = False,
) -> None:
    """Print this node's metrics in Prometheus' text format, or write them to a file in one step.

    The metrics are: used and free addresses, stale leases, the plugin's calls by verb and outcome with their durations,
    drift, doctor's findings, and repairs of `cnictl watch`. Run it from a timer for node_exporter:

    \b
    cnictl metrics
    cnictl metrics --textfile /var/lib/prometheus/node-exporter/cnictl.prom
    """
    if textfile and not textfile.endswith(".prom"):
        raise UsageProblem(f"--textfile {textfile}: node_exporter reads only *.prom", f"{textfile}.prom")
    require_root("metrics", "reads the firewall's rules and the attachment records")

    text = metric_families.text(with_doctor=not no_doctor)
    if textfile:
        output_file.write(textfile, text.encode(), 0o644, keep_mode=True)
    else:
        print(text, end="")
