"""Run a cluster on one machine: each node is a set of namespaces with its own root file system."""
