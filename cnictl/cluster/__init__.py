"""Manage all hosts of a cluster file over ssh: their status, faults between them, changes, and connectivity."""
