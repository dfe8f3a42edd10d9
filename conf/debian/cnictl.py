#!/usr/bin/python3 -ISXutf8
"""Start cnictl with the modules of this package alone: no other folder's packages or `.pth` files are read."""

import sys

sys.path.insert(0, "/usr/lib/cnictl/site")
sys.argv[0] = "cnictl"

from cnictl.cli.entry import main  # noqa: E402 - from the folder that the line above names

main()
