"""Keeping a node right while it runs: what something else took away is put back as the kernel tells of it."""
