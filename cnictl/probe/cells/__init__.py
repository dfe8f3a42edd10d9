"""Cells of `test-connectivity`: what a pod needs besides pings, such as ports, DNS, Services and the path MTU."""
