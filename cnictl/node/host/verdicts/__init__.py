"""Model what a host's packet filters do to pods' packets, and decide where accepts belong. All functions are pure."""
