"""Test leases as operators see them."""
