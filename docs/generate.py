"""Write docs/commands.md from the command line's own help. `--check` compares the file and writes nothing."""

import html
import re
import subprocess
import sys
import textwrap
from pathlib import Path

TARGET = Path(__file__).parent / "commands.md"


def reference() -> str:
    """Return the command reference that typer derives from the program, with its examples in fenced blocks."""
    done = subprocess.run(
        [sys.executable, "-m", "typer", "cnictl.cli.main", "utils", "docs", "--name", "cnictl", "--title", "Commands"],
        capture_output=True,
        text=True,
        check=True,
    )
    # typer leaves an empty line in place of the \b that opens a help text's examples: two empty lines come before them
    return re.sub(r"\n\n\n((?:.+\n)+)", _fence, html.unescape(done.stdout))


def _fence(examples: re.Match[str]) -> str:
    return f"\n\n```sh\n{textwrap.dedent(examples[1])}```\n"


def main() -> int:
    """Return exit status 1 if `--check` finds the committed file out of date."""
    text = reference()
    if "--check" in sys.argv:
        return int(TARGET.read_text() != text)
    TARGET.write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
