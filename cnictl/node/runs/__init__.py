"""Runs: plan, apply, verify, undo, confirm in time, reset, sweep."""
