"""Code that the plugin and the CLI share. It uses only the standard library and imports nothing from other layers."""
