"""`cnictl watch`: repair this node whenever something else changes it."""

from __future__ import annotations  # a type would execute the module that the loader postpones

from typing import Annotated

import typer

from cnictl.cli.output import say
from cnictl.cli.root import require_root
from cnictl.node.plugin import program
from cnictl.node.resources import boot_unit
from cnictl.node.runs import converge
from cnictl.watch import keeper


def watch(
    unit: Annotated[bool, typer.Option("--unit", help="Only print the systemd unit that runs `cnictl watch`.")] = False,
) -> None:
    """Repair this node whenever something else changes it, until watch is stopped.

    The kernel reports a flushed rule set, a deleted bridge address or a lost route, and watch repairs it in less than a
    second. Each repair is a line on stderr and a run in `cnictl history`, with the program that caused it if the kernel
    names one. If another program removes the same thing five times in a minute, watch says so once and leaves it
    alone until it has been right for five minutes, or until SIGHUP. An edited node.toml waits for `cnictl apply`.

    \b
    cnictl watch
    cnictl watch --unit > /etc/systemd/system/cnictl-watch.service
    """
    if unit:
        print(boot_unit.unit_text("cnictl-watch.service"), end="")
        if not program.is_sound():
            say(
                f"{program.COMMAND} does not exist yet: where systemd runs, cnictl init-node, apply or plugin install "
                "makes it"
            )
        return
    require_root("watch", "changes the host's network")

    converge.current_spec()
    keeper.Keeper(keeper.to_stderr).run()
