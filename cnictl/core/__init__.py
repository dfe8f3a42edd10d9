"""What the plugin and the operator's tool share. Standard library only; nothing here imports upwards."""
