"""`python -m cnictl`: the same as the `cnictl` command."""

from cnictl.cli.main import main

main()
