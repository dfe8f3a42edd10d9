"""Write docs/commands.md from the command line's own help, so that the two can't differ. `--check` only compares."""

import html
import subprocess
import sys
from pathlib import Path

TARGET = Path(__file__).parent / "commands.md"


def reference() -> str:
    """The command reference as typer derives it from the program."""
    done = subprocess.run(
        [sys.executable, "-m", "typer", "cnictl.cli.main", "utils", "docs", "--name", "cnictl", "--title", "Commands"],
        capture_output=True,
        text=True,
        check=True,
    )
    return html.unescape(done.stdout)


def main() -> int:
    """Exit status 1 if `--check` finds the committed file out of date."""
    text = reference()
    if "--check" in sys.argv:
        return int(TARGET.read_text() != text)
    TARGET.write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
