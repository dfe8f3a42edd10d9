"""Keep a node as its node file says: repair what other programs change, as soon as the kernel reports it."""
