"""Find what keeps a node from working although cnictl is sound, name it in one line, and fix it."""
