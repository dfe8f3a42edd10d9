#!/bin/sh
# Run a linter of the project's environment, which is made first if it is missing: `sh tests/lint.sh ruff check`.
set -eu
cd "$(dirname "$0")/.."
tool="$1"
shift
[ -x ".venv/bin/$tool" ] || sh tests/setup.sh --tests >&2
exec ".venv/bin/$tool" "$@"
