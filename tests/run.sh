#!/bin/sh
# Run the whole test suite: linters, the type checker, then every test. As root, also run the README's first command and
# part of the kernel tests as an ordinary user, from a fresh copy of the checkout. These are the kernel tests whose result
# may differ for that user.
set -eu
cd "$(dirname "$0")/.."

# Copy the checkout to a new folder that everyone may enter, and print the folder's path.
snapshot() {
    folder="$(mktemp -d)"
    chmod 755 "$folder"
    git ls-files -z --cached --others --exclude-standard |
        tar --null --ignore-failed-read -T - -cf - | tar -C "$folder" -xf -
    cp -a .git "$folder/"
    echo "$folder"
}
as_nobody() {
    setpriv --reuid nobody --regid nogroup --clear-groups "$@" </dev/null
}

if [ "$(id -u)" = 0 ] && ! as_nobody test -r "$PWD/pyproject.toml"; then
    echo "== an ordinary user may not enter $PWD: the tests run in a copy"
    copy="$(snapshot)"
    trap 'rm -rf "$copy"' EXIT
    sh "$copy/tests/run.sh"
    exit 0
fi

sh tests/setup.sh --tests
PATH="$PATH:/usr/sbin:/sbin"
export PATH

echo "== ruff, mypy"
.venv/bin/ruff check .
.venv/bin/ruff format --check .
.venv/bin/mypy

echo "== tests as $(id -un)"
# A kernel test mostly waits, so there are more workers than cores. All tests of a file run on one worker, because they
# share a lab. The folders' order puts the long files first, so that no worker starts one at the end.
.venv/bin/python -m pytest -q -n 4 --dist loadfile --no-loadscope-reorder --durations 15 tests

[ "$(id -u)" = 0 ] || exit 0

echo "== the README's first command and the kernel tests as an ordinary user"
copy="$(snapshot)"
trap 'rm -rf "$copy"' EXIT
chown -R nobody:nogroup "$copy"
as_user() {
    (cd "$copy" && HOME="$copy" PYTHONDONTWRITEBYTECODE=1 as_nobody "$@")
}
as_user sh -c 'sh tests/setup.sh && .venv/bin/cnictl lab demo'
# CNICTL_COLD: each command is a new process
as_user sh -c 'sh tests/setup.sh --tests && CNICTL_COLD=1 .venv/bin/python -m pytest -q -n 4 --dist loadfile --no-loadscope-reorder -p no:cacheprovider -m "not once" tests/kernel'
