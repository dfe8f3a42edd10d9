"""Where a node learns the other nodes from: the sources, and which of what they announce is accepted."""
