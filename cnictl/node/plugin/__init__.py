"""The plugin on a node: installed versions, interpreters, file ownership, the self-test."""
