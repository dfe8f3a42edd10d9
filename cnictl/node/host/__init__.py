"""Read the host: links, routes, policy rules, packet filters, container runtimes. Changes nothing."""
