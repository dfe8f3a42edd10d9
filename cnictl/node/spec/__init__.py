"""The desired state of a node: the node file, its rules, its peers, and suggestions for wrong values."""
