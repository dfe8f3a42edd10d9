"""Decide whether the long sweeps run (`make soak`): kills at many more points, more pods, more generated examples."""

import os

SOAK = os.environ.get("CNICTL_SOAK", "") not in ("", "0")
