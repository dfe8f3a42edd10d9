"""Model what a host's packet filters do to pods' packets, and decide where accept rules belong.

All functions are pure.
"""
