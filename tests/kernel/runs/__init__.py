"""Runs and what takes them back: confirm, undo, reset, watch, and runs that are killed."""
