"""Pods run by real clients (podman, containerd's CRI, host-local), each test on a throw-away machine. Needs root."""
