"""The masquerade rule set and the two packet filters that it is loaded into."""
