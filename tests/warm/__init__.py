"""Run `cnictl` on lab nodes without its start-up time."""
