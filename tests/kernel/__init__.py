"""Run tests on the real kernel, as root or as an ordinary user. Tests create their own hosts and pods."""
