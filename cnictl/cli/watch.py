"""`cnictl watch`: put back what something else takes from this node."""

from typing import Annotated

import typer

from cnictl.cli.output import say
from cnictl.cli.steps import require_root
from cnictl.node.plugin import program
from cnictl.node.resources import boot_unit
from cnictl.node.runs import converge
from cnictl.watch.keeper import Keeper, to_stderr


def watch(
    unit: Annotated[bool, typer.Option("--unit", help="Only print the systemd unit that runs this.")] = False,
) -> None:
    """Put back what something else takes from this node, as the kernel tells of it; runs until it is ended.

    A flushed ruleset, a deleted bridge address, a lost peer route are there again in less than a second. Each repair
    is a line on stderr and a run in `cnictl history`, with the program that made it needed where the kernel names
    one. A thing that is taken away five times in a minute is another program's will: that is said once, and it is
    left alone until it stays right for five minutes, or SIGHUP. An edited node.toml waits for `cnictl apply`.

    \b
    cnictl watch
    cnictl watch --unit > /etc/systemd/system/cnictl-watch.service
    """
    if unit:
        print(boot_unit.unit_text("cnictl-watch.service"), end="")
        if not program.is_sound():
            say(f"{program.COMMAND} is not there yet: cnictl init-node, apply or plugin install makes it under systemd")
        return
    require_root("watch", "changes the host's network")

    converge.current_spec()
    Keeper(to_stderr).run()
