"""What keeps a node from working though nothing is wrong with cnictl: looked for, named in one line, mended."""
