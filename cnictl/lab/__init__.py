"""A cluster on one machine: nodes as namespaces, each with a root of its own."""
