"""Set up nodes on the real kernel: test what init-node, apply and the commands for single parts change."""
