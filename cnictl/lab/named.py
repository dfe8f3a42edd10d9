"""Bring up, find and end named labs, which outlive the command that brings them up."""

from cnictl.core.errors import Problem
from cnictl.lab import state
from cnictl.lab.lab import Lab
from cnictl.lab.state import Running

DEFAULT = "lab"
"""The name of a lab that was given none."""
_NODES = 2


def running(name: str) -> Running | None:
    """Return the lab of that name if it is up. Raises UsageProblem for an invalid name."""
    with state.locked(name) as path:
        return state.read(path)


def command(verb: str, name: str) -> str:
    """Return the command that does something with the lab of that name, such as `up`."""
    return f"cnictl lab {verb}" + ("" if name == DEFAULT else f" --lab {name}")


def attach(name: str) -> Lab:
    """Return the lab of that name, to run commands in it. Raises Problem if it is not up."""
    running_lab = running(name)
    if running_lab is None:
        raise Problem(f"lab {name!r} is not up", command("up", name))
    return Lab.attach(running_lab)


def bring_up(name: str, nodes: int | None, dual_stack: bool) -> Lab | None:
    """Bring a lab up and return it; None if it was already up. Raises Problem if the lab that is up has other nodes.

    `nodes`: None if any number will do; a new lab then has two.
    """
    wanted = Lab(_NODES if nodes is None else nodes, dual_stack)
    with state.locked(name) as path:
        running_lab = state.read(path)
        if running_lab is None:
            state.write(path, wanted.start())
            return wanted
    has = len(running_lab.machines) - 1
    if nodes is not None and has != nodes:
        raise Problem(f"lab {name!r} is up with {has} nodes, not {nodes}", f"{command('down', name)} first")
    if dual_stack and not running_lab.machines[0][0].interface6:
        raise Problem(f"lab {name!r} is up with IPv4 only", f"{command('down', name)} first")
    return None


def end(name: str, asked: bool = False, approved: Running | None = None) -> bool:
    """End a lab and return whether it was up.

    If `asked`, the operator was asked to confirm, and `approved` is the lab that may end. Raises Problem if another lab
    is up now.
    """
    with state.locked(name) as path:
        running_lab = state.read(path)
        if running_lab is not None and asked and running_lab != approved:
            raise Problem(f"lab {name!r} was replaced while cnictl waited for the answer", "run it again")
        if running_lab is not None:
            state.end(running_lab)
        path.unlink(missing_ok=True)
    return running_lab is not None
