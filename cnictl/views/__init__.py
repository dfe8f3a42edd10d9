"""Collect what commands show: status, bridge, NAT, routes, one attachment, metrics, the support bundle."""
