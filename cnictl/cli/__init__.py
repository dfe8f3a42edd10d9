"""The operator's commands. They parse arguments, call core and node, and render results; they contain no logic."""
