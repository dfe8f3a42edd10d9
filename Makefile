# What one types most. `demo` and `test` are the README's two commands.
.PHONY: demo test lint hooks bench parity soak faults storm fuzz doctor neighbours docs lock bundle

demo:
	sh tests/setup.sh && .venv/bin/cnictl lab demo

test:
	sh tests/run.sh

lint:
	sh tests/setup.sh --tests
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/mypy

# ruff and mypy before each commit
hooks:
	sh tests/setup.sh --tests
	.venv/bin/pip install -q --disable-pip-version-check pre-commit
	.venv/bin/pre-commit install

# against the reference plugins; BENCH="--only masquerade --standing 20" and the like chooses, --write fills (docs/dev/speed.md)
bench:
	sh tests/setup.sh --tests
	.venv/bin/python -m tests.bench.plugin $(BENCH)
	.venv/bin/python -m tests.bench.commands

# beside the reference plugins, every key by verb by family; PARITY="--write" renews docs/dev/drop-in.md
parity:
	sh tests/setup.sh --tests
	.venv/bin/python -m tests.parity $(PARITY)

# all that is too long for `make test`: hours; kills at every point, 500 pods, upgrades under 300 pods, twenty times the drawn examples
soak:
	sh tests/setup.sh --tests
	CNICTL_SOAK=1 .venv/bin/python -m pytest -q tests/kernel/runs/test_run_kill.py tests/kernel/plugin/test_kill.py tests/kernel/plugin/test_storm.py \
		tests/kernel/runs/test_watch_kill.py tests/kernel/node/test_source_lost.py tests/kernel/node/test_reach_kubernetes.py tests/cluster/test_install.py
	$(MAKE) fuzz storm faults

# kill -9 before every system call; SWEEP="--points 20 dual-stack" chooses. Then of operators' commands; RUNS="guard"
# chooses. Then versions under a hundred pods
faults:
	sh tests/setup.sh --tests
	.venv/bin/python -m tests.faults.sweep $(SWEEP)
	.venv/bin/python -m tests.faults.runs $(RUNS)
	.venv/bin/python -m tests.faults.following
	CNICTL_PODS=100 .venv/bin/python -m pytest -q tests/kernel/plugin/test_faults.py tests/kernel/plugin/test_faults_files.py tests/kernel/plugin/test_upgrade.py

# 500 pods over 8 workers, ours and the reference; STORM="--pods 200 --masquerade" chooses
storm:
	sh tests/setup.sh --tests
	.venv/bin/python -m tests.faults.storm $(STORM)

# twenty times the usual examples (the suite takes half of them), others in each run; FUZZ=100 chooses
fuzz:
	sh tests/setup.sh --tests
	CNICTL_FUZZ=$(or $(FUZZ),20) .venv/bin/python -m pytest -q tests/unit/test_fuzz.py tests/kernel/plugin/test_fuzz.py

# each fault that doctor knows, made and fixed on a lab node; renews the table in docs/doctor.md
doctor:
	sh tests/setup.sh --tests
	.venv/bin/python -m tests.kernel.doctor.table

# the one fault that needs a kernel of its own: user-mode Linux, as root
neighbours:
	sh tests/setup.sh --tests
	sh tests/uml/neighbours.sh

docs:
	sh tests/setup.sh
	.venv/bin/python docs/generate.py

# renew the pinned and hashed dependencies that packages carry; both files hold no address of a registry
LOCK = .venv/lock/bin/pip-compile --quiet --upgrade --generate-hashes --strip-extras --no-header --no-annotate \
	--no-emit-index-url --no-emit-find-links --no-emit-trusted-host
lock:
	/usr/bin/python3 -m venv .venv/lock
	.venv/lock/bin/pip install -q --disable-pip-version-check pip-tools
	$(LOCK) -o conf/requirements.lock pyproject.toml
	$(LOCK) --extra kubernetes -c conf/requirements.lock -o conf/requirements-kubernetes.lock pyproject.toml

# one tar.gz that installs without a registry (docs/start.md); EXTRA=kubernetes adds what learns peers from Kubernetes,
# compiled for this Python and this kind of machine
bundle:
	sh tests/setup.sh
	rm -rf .venv/wheels build
	.venv/bin/pip download -q --disable-pip-version-check --require-hashes --no-deps --only-binary=:all: -d .venv/wheels \
		-r conf/requirements$(if $(EXTRA),-$(EXTRA)).lock
	SOURCE_DATE_EPOCH=$$(git log -1 --format=%ct) .venv/bin/pip wheel -q --disable-pip-version-check --no-deps -w .venv/wheels .
	.venv/bin/python -m cnictl.cluster.bundle .venv/wheels dist
