"""Setting a node up on the real kernel: what init-node, apply and the commands of a part make of a host."""
