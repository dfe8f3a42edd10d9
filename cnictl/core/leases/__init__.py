"""The lease store: addresses, ranges, and the files that hold them."""
