"""`cnictl` on lab nodes without its start."""
