#!/bin/sh
# Run a linter from the project's environment, for example `sh tests/lint.sh ruff check`. Create the environment first if
# it is missing.
set -eu
cd "$(dirname "$0")/.."
tool="$1"
shift
[ -x ".venv/bin/$tool" ] || sh tests/setup.sh --tests >&2
exec ".venv/bin/$tool" "$@"
