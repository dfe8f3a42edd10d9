"""Call the plugin as a runtime does: in a new process, with its own environment and JSON on stdin."""
