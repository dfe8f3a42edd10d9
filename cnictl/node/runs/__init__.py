"""Runs: plan, apply, verify, undo, confirm within a time, reset, sweep."""
