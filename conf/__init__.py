"""Templates that cnictl installs on a node. Shipped in the wheel as `cnictl_conf`."""
