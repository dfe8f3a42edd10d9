"""`cnictl node`."""

import typer


def register(app: typer.Typer) -> None:
    """Hang the commands on the program."""
