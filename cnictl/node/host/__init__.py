"""What the host looks like: links, routes, policy rules, packet filters, container runtimes. Reads only."""
