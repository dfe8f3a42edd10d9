"""What `cnictl` starts with: an interrupt while the program is still being loaded is one too."""

import os
import sys

from cnictl.core import standard


def main() -> None:
    """Load the command line and run it."""
    standard.open_missing(needed=False)
    # the interpreter has no object for a descriptor that was closed when it started
    sys.stdin = sys.stdin or os.fdopen(0, encoding="utf-8")
    sys.stdout = sys.stdout or os.fdopen(1, "w", encoding="utf-8")
    sys.stderr = sys.stderr or os.fdopen(2, "w", encoding="utf-8", buffering=1)
    try:
        _isolate()
        from cnictl.cli.main import main as run

        run()
    except KeyboardInterrupt:
        print("cnictl: interrupted", file=sys.stderr)
        sys.exit(130)


def _isolate() -> None:
    """Start anew under `python -I` if root's process would load code from a place that another user may have named.

    PYTHONPATH and its like, the current folder (`python -m`) and a user's site-packages are such places. What the
    interpreter loaded from them before this line can't be undone: units and scripts name `-I` themselves.
    """
    if sys.flags.isolated or os.geteuid() != 0:
        return
    started_by_name = sys.orig_argv[1:2] != ["-m"]
    user_site = getattr(sys.modules.get("site"), "ENABLE_USER_SITE", False)
    if started_by_name and not user_site and not any(name.startswith("PYTHON") for name in os.environ):
        return
    program = [sys.argv[0]] if started_by_name else ["-m", "cnictl"]
    os.execv(sys.executable, [sys.executable, "-I", *program, *sys.argv[1:]])
