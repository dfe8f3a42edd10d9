"""Find faults of the host that keep a node from working, report each in one line, and fix it."""
