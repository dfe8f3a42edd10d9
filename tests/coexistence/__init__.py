"""Test cnictl on a lab node together with other real programs that manage a host's network."""
