"""Test the Debian packages (`make deb-test`)."""
