"""`python -m cnictl`: the same as the `cnictl` command."""

from cnictl.cli.entry import main

main()
