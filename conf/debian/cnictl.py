#!/usr/bin/python3 -ISXutf8
"""Start cnictl with this package's modules only. Packages and `.pth` files in other folders are not read."""

import sys

sys.path.insert(0, "/usr/lib/cnictl/site")
sys.argv[0] = "cnictl"

from cnictl.cli.entry import main  # noqa: E402 - from the folder that the line above names

main()
