"""Netlink without a library: sockets, messages, and what the kernel lists."""
