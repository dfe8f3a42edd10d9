"""Netlink without a library: sockets, messages, and listings of the kernel's objects."""
