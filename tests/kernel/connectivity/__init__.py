"""What is said of reachability: test-connectivity, causes, peers, and that nothing is called ok unseen."""
