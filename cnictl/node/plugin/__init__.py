"""The plugin on a node: installed releases, interpreters, file ownership, the self-test."""
