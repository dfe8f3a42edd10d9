"""Keep a node as its node file describes it: repair what other programs change as soon as the kernel reports it."""
