"""The plugin, called as a runtime calls it: a fresh process, its environment, JSON on stdin."""
