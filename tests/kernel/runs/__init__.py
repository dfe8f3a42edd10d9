"""Test runs and how they are reverted: confirm, undo, reset, watch, and runs that are killed."""
