"""Test the lab and its demonstration."""
