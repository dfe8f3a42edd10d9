"""Read and check the plugin's network configuration."""
