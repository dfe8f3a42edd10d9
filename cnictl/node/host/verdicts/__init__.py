"""What a host's packet filters do to pods' packets: rule sets as values, and where in them an accept belongs. Pure."""
