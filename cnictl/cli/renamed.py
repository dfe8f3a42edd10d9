"""Define the old names of renamed options. Each works for one release, with a warning; help leaves it out."""

from typing import Annotated, Any

import typer

from cnictl.cli.output import say
from cnictl.node.spec import swapped


def _former(old: str, new: str) -> Any:
    """Return the option `old`, whose value the command takes as that of `new`."""

    def warn(context: typer.Context, name: str) -> str:
        # completion also reads the options, and a CIDR gets its own error message
        if name and not context.resilient_parsing and not swapped.is_cidr(name):
            say(f"cnictl: {old} is now {new}, and the next release removes {old}: use {new} {name}")
        return name

    return typer.Option(old, metavar="NAME", hidden=True, callback=warn)


FormerNetworkOption = Annotated[str, _former("--network", "--name")]
FormerLabOption = Annotated[str, _former("--name", "--lab")]
