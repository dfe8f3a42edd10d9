"""Sources of peers, and which of the nodes that a source announces become peers."""
