"""Compare the reference `bridge` + `host-local` with our plugin in a fixed list of scenarios, with one verdict per row.

`python -m tests.parity` runs both sides in the same scenario on the same kernel and compares their answers and what
they leave. `--write` renews docs/dev/drop-in.md. The verdicts follow from rules (`rules`), which know no row by name.
"""
