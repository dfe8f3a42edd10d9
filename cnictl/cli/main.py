"""The entry point: assembles the command groups, and prints every error once, in one line."""

import os
import sys

import typer

from cnictl.cli import groups
from cnictl.core.errors import CniError, Problem
from cnictl.core.paths import STATE_DIR

app = typer.Typer(
    name="cnictl",
    help="Container networking on plain Linux hosts: set a node up, inspect it, prove that pods reach each other.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
groups.register(app)

_INTERRUPTED = 130
"""Exit status: 128 and SIGINT's number, as a shell gives it."""


def main() -> None:
    """Run the command line; exit status 0 done, 1 failed or drifted, 2 usage."""
    if sys.stdout is None:  # started with it closed: `cnictl status >&-`
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115 (until the end)
    status = _run()
    try:
        sys.stdout.flush()
    except OSError as error:
        if not isinstance(error, BrokenPipeError):
            print(f"cnictl: the output could not be written: {error.strerror}", file=sys.stderr)
        _drop_output()
        status = status or 1
    sys.exit(status)


def _run() -> int:
    """The exit status; whatever failed has been told by then."""
    try:
        _undo_unconfirmed()
        status = app(standalone_mode=False)
    except Problem as problem:
        print(f"cnictl: {problem.message}", file=sys.stderr)
        if problem.mend:
            print(f"  mend: {problem.mend}", file=sys.stderr)
        return problem.exit_status
    except (typer.Abort, KeyboardInterrupt):
        print("cnictl: interrupted", file=sys.stderr)
        return _INTERRUPTED
    except BrokenPipeError:
        _drop_output()
        return 1
    except Exception as error:
        # Usage errors are typer's own; its exception classes moved between releases, the interface did not.
        describe = getattr(error, "format_message", None)
        if describe is None:
            print(f"cnictl: {_fault(error)}", file=sys.stderr)
            return 1
        if type(error).__name__ != "NoArgsIsHelpError":
            context = getattr(error, "ctx", None)
            command = context.command_path if context is not None else "cnictl"
            print(f"cnictl: {describe()} (see: {command} --help)", file=sys.stderr)
        return 2
    if status == _INTERRUPTED:  # typer catches Ctrl-C itself and says nothing
        print("cnictl: interrupted", file=sys.stderr)
    return status if isinstance(status, int) else 0


def _undo_unconfirmed() -> None:
    """Take back what was to be confirmed and was not, if its guards could not: every call of root's looks."""
    if os.geteuid() != 0 or not os.path.lexists(f"{STATE_DIR}/confirm.json"):
        return
    from cnictl.node import confirm

    try:
        undone = confirm.undo_if_due()
    except Problem as problem:
        print(f"cnictl: undoing what was not confirmed: {problem.message}", file=sys.stderr)
        return
    if undone is not None:
        for line in (str(undone), *(f"left: {note}" for note in undone.left)):
            print(f"cnictl: {line}", file=sys.stderr)


def _drop_output() -> None:
    """Let nothing more be said of an output that nobody reads: the interpreter tries again when it ends."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _fault(error: Exception) -> str:
    """What the core, the system or a mistake of ours raised, in one line with the place where it arose."""
    if isinstance(error, CniError):
        return f"{error.msg} ({error.details})" if error.details else error.msg
    if isinstance(error, OSError):
        return f"{error.filename}: {error.strerror}" if error.filename else str(error)
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    place = f"{trace.tb_frame.f_code.co_filename}:{trace.tb_lineno}" if trace is not None else "unknown"
    return f"a fault of cnictl, please report it: {type(error).__name__}: {error} (at {place})"
