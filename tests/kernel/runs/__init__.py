"""Test runs, and what reverts or completes them: confirm, undo, reset, watch, and the command after a kill."""
