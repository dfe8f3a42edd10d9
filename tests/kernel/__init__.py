"""Tests on the real kernel, each on hosts and pods of its own: as root or as an ordinary user."""
