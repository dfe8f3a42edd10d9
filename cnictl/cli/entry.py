"""What `cnictl` starts with: an interrupt while the program is still being loaded is one too."""

import sys


def main() -> None:
    """Load the command line and run it."""
    try:
        from cnictl.cli.main import main as run

        run()
    except KeyboardInterrupt:
        print("cnictl: interrupted", file=sys.stderr)
        sys.exit(130)
