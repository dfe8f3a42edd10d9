"""Decide whether the long sweeps run (CNICTL_SOAK=1): many more kills, pods and generated cases."""

import os

SOAK = os.environ.get("CNICTL_SOAK", "") not in ("", "0")
