"""The operator's commands: arguments in, core and node calls, rendering out. No logic."""
