# Commands for developers. The README names `demo` and `test`.
.PHONY: demo test lint hooks bench parity soak faults storm fuzz doctor neighbours docs lock bundle deb deb-test

demo:
	sh tests/setup.sh && .venv/bin/cnictl lab demo

test:
	sh tests/run.sh

lint:
	sh tests/setup.sh --tests
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/mypy

# run ruff and mypy before each commit
hooks:
	sh tests/setup.sh --tests
	.venv/bin/pip install -q --disable-pip-version-check pre-commit
	.venv/bin/pre-commit install

# measure calls beside the reference plugins'; BENCH="--only masquerade --standing 20" selects cases, BENCH=--write
# updates docs/dev/speed.md
bench:
	sh tests/setup.sh --tests
	.venv/bin/python -m tests.bench.plugin $(BENCH)
	.venv/bin/python -m tests.bench.commands

# compare with the reference plugins, for every key, verb and family; PARITY=--write rewrites docs/dev/drop-in.md
parity:
	sh tests/setup.sh --tests
	.venv/bin/python -m tests.parity $(PARITY)

# run what takes too long for `make test` (hours): kills at every point, 500 pods, upgrades under 300 pods, twenty times
# the usual number of drawn examples
soak:
	sh tests/setup.sh --tests
	CNICTL_SOAK=1 .venv/bin/python -m pytest -q tests/kernel/runs/test_run_kill.py tests/kernel/plugin/test_kill.py tests/kernel/plugin/test_storm.py \
		tests/kernel/runs/test_watch_kill.py tests/kernel/node/test_source_lost.py tests/kernel/node/test_reach_kubernetes.py tests/cluster/test_install.py \
		tests/kernel/connectivity/test_ping.py tests/kernel/connectivity/test_cells.py tests/kernel/runs/test_pasted.py
	$(MAKE) fuzz storm faults

# kill the plugin before each system call (SWEEP="--points 20 dual-stack" selects), then operators' commands before each
# change (RUNS="guard" selects), then watch before each step; then change versions under a hundred pods
faults:
	sh tests/setup.sh --tests
	.venv/bin/python -m tests.faults.sweep $(SWEEP)
	.venv/bin/python -m tests.faults.runs $(RUNS)
	.venv/bin/python -m tests.faults.following
	CNICTL_PODS=100 .venv/bin/python -m pytest -q tests/kernel/plugin/test_faults.py tests/kernel/plugin/test_faults_files.py tests/kernel/plugin/test_upgrade.py

# attach, check and detach 500 pods with 8 workers, with ours and the reference; STORM="--pods 200 --masquerade" selects
storm:
	sh tests/setup.sh --tests
	.venv/bin/python -m tests.faults.storm $(STORM)

# draw twenty times the usual number of examples, different ones in each run (the suite draws half of it, always the
# same); FUZZ=100 sets the factor
fuzz:
	sh tests/setup.sh --tests
	CNICTL_FUZZ=$(or $(FUZZ),20) .venv/bin/python -m pytest -q tests/unit/test_fuzz.py tests/kernel/plugin/test_fuzz.py

# cause and fix each fault that doctor knows on a lab node; rewrites the tables in docs/doctor.md
doctor:
	sh tests/setup.sh --tests
	.venv/bin/python -m tests.kernel.doctor.table

# test the one fault that needs a separate kernel, with user-mode Linux, as root
neighbours:
	sh tests/setup.sh --tests
	sh tests/uml/neighbours.sh

docs:
	sh tests/setup.sh
	.venv/bin/python docs/generate.py

# renew the pinned and hashed dependencies that packages contain; the two files contain no registry's address
LOCK = .venv/lock/bin/pip-compile --quiet --upgrade --generate-hashes --strip-extras --no-header --no-annotate \
	--no-emit-index-url --no-emit-find-links --no-emit-trusted-host
lock:
	/usr/bin/python3 -m venv .venv/lock
	.venv/lock/bin/pip install -q --disable-pip-version-check pip-tools
	$(LOCK) -o conf/requirements.lock pyproject.toml
	$(LOCK) --extra kubernetes -c conf/requirements.lock -o conf/requirements-kubernetes.lock pyproject.toml

# make one tar.gz that installs without a registry (docs/start.md); EXTRA=kubernetes adds the modules that learn peers
# from Kubernetes, compiled for this Python and machine type
bundle:
	sh tests/setup.sh
	rm -rf .venv/wheels build
	.venv/bin/pip download -q --disable-pip-version-check --require-hashes --no-deps --only-binary=:all: -d .venv/wheels \
		-r conf/requirements$(if $(EXTRA),-$(EXTRA)).lock
	SOURCE_DATE_EPOCH=$$(git log -1 --format=%ct) .venv/bin/pip wheel -q --disable-pip-version-check --no-deps -w .venv/wheels .
	.venv/bin/python -m cnictl.cluster.bundle .venv/wheels dist

# build the Debian packages into dist/; needs the packages in Build-Depends of conf/debian/control
deb:
	sh conf/debian/build.sh

# build the packages in a bare Debian 12, and install, upgrade, remove and purge them there; needs root and debootstrap;
# TREES names a folder for some 2 GB, which later runs reuse
TREES = /var/tmp/cnictl-deb
deb-test:
	sh tests/setup.sh --tests
	.venv/bin/python -m tests.deb.trees $(TREES)
	CNICTL_DEB=$(TREES) .venv/bin/python -m pytest -q tests/deb
