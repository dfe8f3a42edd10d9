"""Which module serves which command. The modules import typer alone at the top, all else in the command."""

import typer


def register(app: typer.Typer) -> None:
    """Hang every command group on the program."""
    from cnictl.cli import (
        bridge,
        confirm,
        connectivity,
        doctor,
        history,
        ipam,
        ipam_check,
        lab,
        logs,
        metrics,
        nat,
        node,
        plugin,
        pod,
        route,
        status,
        support_bundle,
        watch,
    )

    for one in (node, status, doctor, connectivity, history, confirm, watch, logs, metrics, pod, support_bundle):
        one.register(app)
    app.add_typer(bridge.app, name="bridge")
    app.add_typer(nat.app, name="nat")
    app.add_typer(route.app, name="route")
    ipam_check.register(ipam.app)
    app.add_typer(ipam.app, name="ipam")
    app.add_typer(plugin.app, name="plugin")
    app.add_typer(lab.app, name="lab")
