"""Compare the reference `bridge` and `host-local` with cnictl-bridge in a fixed list of scenarios, one verdict per row.

`python -m tests.parity` runs both sides in the same scenario on the same kernel and compares their answers and what
they leave. `--write` rewrites docs/dev/drop-in.md. The verdicts follow from general rules (`rules`).
"""
