"""Test the reports of reachability: test-connectivity, causes and peers. Nothing unchecked may count as ok."""
