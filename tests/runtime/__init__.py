"""Test pods with real clients (podman, containerd's CRI, host-local) on throw-away machines. Needs root."""
