"""Other programs that see to a host's network, the real ones, beside cnictl on a lab node."""
