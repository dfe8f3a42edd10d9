"""`cnictl metrics`: the node in numbers, for Prometheus."""

from typing import Annotated

import typer

from cnictl.cli.root import require_root
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
    ask_peers: Annotated[
        bool, typer.Option("--ask-peers", help="Also run doctor's checks that wait for answers from peers.")
    ] = False,
) -> None:
    """Print this node's metrics in Prometheus' text format, or write them to a file in one step.

    The metrics are: used and free addresses, stale leases, the plugin's calls by verb and outcome with their durations,
    drift, doctor's findings, and repairs of `cnictl watch`. Doctor's checks that wait for answers from peers are run
    only with --ask-peers; otherwise `cnictl_doctor_checks_not_made` names them. Run it from a timer for node_exporter:

    \b
    cnictl metrics
    cnictl metrics --ask-peers
    cnictl metrics --textfile /var/lib/prometheus/node-exporter/cnictl.prom
    """
    if textfile and not textfile.endswith(".prom"):
        raise UsageProblem(f"--textfile {textfile}: node_exporter reads only *.prom", f"{textfile}.prom")
    if no_doctor and ask_peers:
        raise UsageProblem("--ask-peers adds checks, but --no-doctor leaves out all checks", "give one of the two")
    require_root("metrics", "reads the firewall's rules and the attachment records")

    text = metric_families.text(with_doctor=not no_doctor, ask_peers=ask_peers)
    if textfile:
        output_file.write(textfile, text.encode(), 0o644, keep_mode=True)
    else:
        print(text, end="")
