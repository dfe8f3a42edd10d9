"""The reference `bridge` + `host-local` and ours side by side: a fixed list of scenarios, one verdict a row.

`python -m tests.parity` runs both in the same scenario on the same kernel and compares what they answer and leave;
`--write` renews docs/dev/drop-in.md. Nothing here decides by name which side is right: verdicts come of rules
(`rules`).
"""
