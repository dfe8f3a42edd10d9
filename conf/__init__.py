"""The templates that cnictl installs on a node. The wheel contains them as `cnictl_conf`."""
