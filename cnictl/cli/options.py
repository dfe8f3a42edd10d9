"""The options that commands which change this node share."""

from typing import Annotated

import typer

DryRunOption = Annotated[
    bool,
    typer.Option(
        "--dry-run", help="Change nothing: print what would change as a shell script, with each manual command."
    ),
]
ExitCodeOption = Annotated[
    bool, typer.Option("--exit-code", help="With --dry-run: exit status 1 if something would change, 0 if nothing.")
]
NoWaitOption = Annotated[
    bool, typer.Option("--no-wait", help="Fail immediately if another cnictl command is changing this node.")
]
ConfirmOption = Annotated[
    int | None,
    typer.Option(
        "--confirm-within",
        metavar="SECONDS",
        min=1,
        max=86400,
        help="Undo the run after this many seconds, unless you run `cnictl confirm` before then.",
    ),
]
ForceOption = Annotated[
    bool, typer.Option("--force", help="Continue although live pods lose their network: their attachments are deleted.")
]
