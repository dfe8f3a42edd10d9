"""The lab and its demonstration."""
