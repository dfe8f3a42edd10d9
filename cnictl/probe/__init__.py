"""Connectivity checks from inside pods, and the causes of failed checks."""
