"""Make one fault at a time on a working node: traffic suffers, `cnictl doctor` names only it, and the fix works."""
