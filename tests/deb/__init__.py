"""Tests of the Debian packages: `make deb-test`."""
