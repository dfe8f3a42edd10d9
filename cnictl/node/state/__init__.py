"""Keep cnictl's records about a node: the journal, the original state, the run lock, the pending confirmation."""
