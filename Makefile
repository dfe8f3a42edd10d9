# What one types most. `demo` and `test` are the README's two commands.
.PHONY: demo test lint bench parity docs

demo:
	sh tests/setup.sh && .venv/bin/cnictl lab demo

test:
	sh tests/run.sh

lint:
	sh tests/setup.sh --tests
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/mypy

# against the reference plugins; BENCH="--pods 20 --store tmpfs" and the like chooses (docs/speed.md)
bench:
	sh tests/setup.sh --tests
	.venv/bin/python -m tests.bench.plugin $(BENCH)

# beside the reference plugins, every key by verb by family; PARITY="--write" renews docs/drop-in.md
parity:
	sh tests/setup.sh --tests
	.venv/bin/python -m tests.parity $(PARITY)

docs:
	sh tests/setup.sh
	.venv/bin/python docs/generate.py
