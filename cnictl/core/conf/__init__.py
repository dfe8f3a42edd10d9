"""The network configuration of the plugin, read and checked."""
