"""Cells of `test-connectivity`: what a pod needs beside pings, such as ports, DNS, Services and the path MTU."""
