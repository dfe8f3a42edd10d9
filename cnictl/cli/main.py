"""The entry point: assembles the command groups, and prints every error once, in one line."""

import os
import sys

import typer

from cnictl.cli import groups
from cnictl.core.errors import Problem

app = typer.Typer(
    name="cnictl",
    help="Container networking on plain Linux hosts: set a node up, inspect it, prove that pods reach each other.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
groups.register(app)


def main() -> None:
    """Run the command line; exit status 0 done, 1 failed or drifted, 2 usage."""
    try:
        status = app(standalone_mode=False)
    except Problem as problem:
        print(f"cnictl: {problem.message}", file=sys.stderr)
        if problem.mend:
            print(f"  mend: {problem.mend}", file=sys.stderr)
        sys.exit(problem.exit_status)
    except (typer.Abort, KeyboardInterrupt):
        print("cnictl: interrupted", file=sys.stderr)
        sys.exit(130)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except Exception as error:
        # Usage errors are typer's own; its exception classes moved between releases, the interface did not.
        describe = getattr(error, "format_message", None)
        if describe is None:
            raise
        if type(error).__name__ != "NoArgsIsHelpError":
            context = getattr(error, "ctx", None)
            command = context.command_path if context is not None else "cnictl"
            print(f"cnictl: {describe()} (see: {command} --help)", file=sys.stderr)
        sys.exit(2)
    sys.exit(status if isinstance(status, int) else 0)
