"""Leases as an operator sees them."""
