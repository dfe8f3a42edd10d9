"""Test the reports of reachability: test-connectivity, causes, peers, and that nothing counts as ok unchecked."""
