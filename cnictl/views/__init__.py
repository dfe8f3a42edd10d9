"""What people read: status, bridge, NAT, routes, one attachment, metrics, the support bundle."""
