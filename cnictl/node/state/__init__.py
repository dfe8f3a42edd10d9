"""What cnictl keeps about a node: the journal, the original state, the run lock."""
