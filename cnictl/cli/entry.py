"""Start `cnictl`: choose a safe interpreter and encoding, and catch Ctrl-C while the program loads.

`--version` and completion are answered here: loading typer takes longer than either.
"""

import os
import sys

from cnictl import __version__
from cnictl.cli import encoding
from cnictl.core import standard
from cnictl.core.paths import CONFIRM_FILE

_HARMLESS = ("PYTHONDONTWRITEBYTECODE", "PYTHONHASHSEED", "PYTHONUNBUFFERED")
"""Variables that containers and CI often set, and that name no place to load code from (python(1))."""
COMPLETE = "_CNICTL_COMPLETE"
"""The variable by which a shell's completion asks for words instead of running a command."""


def main() -> None:
    """Load the command line and run it."""
    standard.open_missing(needed=False)
    # the interpreter has no object for a descriptor that was closed when it started
    sys.stdin = sys.stdin or os.fdopen(0, encoding="utf-8")
    sys.stdout = sys.stdout or os.fdopen(1, "w", encoding="utf-8")
    sys.stderr = sys.stderr or os.fdopen(2, "w", encoding="utf-8", buffering=1)
    try:
        _restart_if_needed()
        encoding.make_lenient()
        if _prints_version():
            return
        if COMPLETE in os.environ:
            from cnictl.cli import completion

            sys.exit(completion.main(os.environ))
        from cnictl.cli.main import main as run

        run()
    except KeyboardInterrupt:
        print("cnictl: interrupted", file=sys.stderr)
        sys.exit(130)


def _prints_version() -> bool:
    """Print the version if only that is requested, and return whether it was printed.

    The whole program answers instead if a run waits for its confirmation, or if the output can't be written.
    """
    if sys.argv[1:] != ["--version"] or COMPLETE in os.environ or os.path.lexists(CONFIRM_FILE):
        return False
    try:
        os.write(1, f"cnictl {__version__}\n".encode())
    except OSError:
        return False
    return True


def _restart_if_needed() -> None:
    """Restart under `python -I` if root's process would load code from a place that another user may have named.

    PYTHONPATH and its like, the current folder (`python -m`) and a user's site-packages are such places. What the
    interpreter loaded from them before this line can't be undone: units and scripts pass `-I` themselves. An
    interpreter that names files in a locale's encoding is restarted too, because it could not open every file.
    """
    by_name = sys.orig_argv[1:2] != ["-m"]
    isolates = os.geteuid() == 0 and not sys.flags.isolated and _may_load_foreign_code(by_name)
    if not isolates and encoding.is_utf8():
        return
    if sys.flags.isolated and not sys.argv[0].startswith("/"):
        return  # root's copy: its own script started it and passes `-X utf8`
    flags = ["-I"] if isolates or sys.flags.isolated else []
    program = ["-m", "cnictl"] if os.path.basename(sys.argv[0]) == "__main__.py" else [sys.argv[0]]
    os.execv(sys.executable, [sys.executable, *flags, *encoding.options(), *program, *sys.argv[1:]])


def _may_load_foreign_code(by_name: bool) -> bool:
    user_site = getattr(sys.modules.get("site"), "ENABLE_USER_SITE", False)
    named = any(name.startswith("PYTHON") and name not in _HARMLESS for name in os.environ)
    return not by_name or bool(user_site) or named
