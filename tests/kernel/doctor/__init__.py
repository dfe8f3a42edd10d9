"""One fault at a time on a node that works: traffic suffers, `cnictl doctor` names it alone, and it is fixed."""
