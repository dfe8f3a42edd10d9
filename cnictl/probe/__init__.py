"""Connectivity checks from inside pods, and the causes of those that fail."""
