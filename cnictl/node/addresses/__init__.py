"""Leases as an operator sees them: list, check, release, collect."""
