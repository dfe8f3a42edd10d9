"""The node in numbers, in Prometheus' text format."""
