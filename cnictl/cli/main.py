"""Run the command line, and print every error once, in one line."""

import os
import sys
from typing import Annotated

import typer

from cnictl import __version__
from cnictl.cli import help_text, mistyped
from cnictl.cli.groups import Commands
from cnictl.cli.output import say
from cnictl.core.errors import Problem
from cnictl.core.paths import CONFIRM_FILE

app = typer.Typer(
    name="cnictl",
    cls=Commands,
    no_args_is_help=True,
    add_completion=False,  # `cnictl completion`
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"cnictl {__version__}")
        raise typer.Exit


@app.callback()
def cnictl(
    version: Annotated[
        bool, typer.Option("--version", is_eager=True, callback=_print_version, help="Print the version and exit.")
    ] = False,
) -> None:
    """Container networking on plain Linux hosts: set a node up, inspect it, prove that pods reach each other."""


_INTERRUPTED = 130
"""Exit status: 128 plus SIGINT's number, as in a shell."""


def main() -> None:
    """Run the command line; exit status 0 done, 1 failed or drifted, 2 usage."""
    status = _run()
    skipped_entries = sys.modules.get("cnictl.core.skipped_entries")  # not loaded: nothing was skipped
    if skipped_entries is not None:
        matters = any(matters for _, matters in skipped_entries.skipped.values())
        for line in skipped_entries.reports():
            say(f"cnictl: {line}")
        status = status or int(matters)
    try:
        sys.stdout.flush()
    except OSError as error:
        if not isinstance(error, BrokenPipeError):
            say(f"cnictl: the output could not be written: {error.strerror}")
        _drop_output()
        status = status or 1
    sys.exit(status)


def _run() -> int:
    """Run the command and return its exit status; a failure is already printed."""
    try:
        _undo_unconfirmed()
        status = app(standalone_mode=False)
    except Problem as problem:
        say(f"cnictl: {problem.message}")
        if problem.hint:
            say(f"  hint: {problem.hint}")
        return problem.exit_status
    except (typer.Abort, KeyboardInterrupt):
        say("cnictl: interrupted")
        return _INTERRUPTED
    except BrokenPipeError:
        _drop_output()
        return 1
    except OSError as error:
        try:
            sys.stdout.flush()
        except OSError:
            return 1  # the output can't be written; `main` reports that
        say(f"cnictl: {_fault(error)}")
        return 1
    except Exception as error:
        # Usage errors are typer's own; its exception classes moved between releases, the interface did not.
        describe = getattr(error, "format_message", None)
        if describe is None:
            say(f"cnictl: {_fault(error)}")
            return 1
        if type(error).__name__ == "NoArgsIsHelpError":
            print(describe())
        else:
            _say_usage(error, describe())
        return 2
    if status == _INTERRUPTED:  # typer catches Ctrl-C itself and says nothing
        say("cnictl: interrupted")
    return status if isinstance(status, int) else 0


def _say_usage(error: Exception, fault: str) -> None:
    """Print what is wrong with the command line, and suggest an option in place of one that does not exist."""
    context, typed = getattr(error, "ctx", None), getattr(error, "option_name", "")
    command = context.command_path if context is not None else "cnictl"
    if context is not None and hasattr(error, "possibilities"):
        fault = f"No such option: {typed}"
    say(f"cnictl: {help_text.ranges_in_words(fault)} (see: {command} --help)")
    if fault.endswith(f": {typed}") and (meant := mistyped.option(typed, context)):
        say(f"  hint: did you mean {meant}?")
    missing = error.param if type(error).__name__ == "MissingParameter" and hasattr(error, "param") else None
    if context is not None and missing is not None and (meant := mistyped.argument(missing.name, context)):
        say(f"  hint: {meant}")


def _undo_unconfirmed() -> None:
    """Undo a run that was not confirmed in time, if its guard failed to. Every command that root runs checks this."""
    if os.geteuid() != 0 or not os.path.lexists(CONFIRM_FILE):
        return
    from cnictl.node.runs import confirm

    try:
        undone = confirm.undo_if_due()
    except Problem as problem:
        say(f"cnictl: undoing the unconfirmed run: {problem.message}")
        return
    if undone is not None:
        for line in (str(undone), *(f"left: {note}" for note in undone.left)):
            say(f"cnictl: {line}")


def _drop_output() -> None:
    """Send stdout to /dev/null, because nobody reads it and the interpreter would flush it again at exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _fault(error: Exception) -> str:
    """Return an unexpected error in one line; for a bug in cnictl, with its location."""
    if isinstance(error, OSError):
        return f"{error.filename}: {error.strerror}" if error.filename else str(error)
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    place = f"{trace.tb_frame.f_code.co_filename}:{trace.tb_lineno}" if trace is not None else "unknown"
    return f"a bug in cnictl, please report it: {type(error).__name__}: {error} (at {place})"
