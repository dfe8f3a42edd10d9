"""The node: its desired state, the resources that make it up, and the spine that moves a host there."""
