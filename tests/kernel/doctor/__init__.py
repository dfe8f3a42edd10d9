"""Make one fault at a time on a working node: traffic suffers, `cnictl doctor` names only that fault, its fix works."""
