"""The masquerade rule set, and the two packet filters that it can be loaded into."""
