#!/bin/sh
# doctor's full neighbour table, made, seen and fixed on a kernel of its own: a namespace shares that of the machine.
# `make neighbours`, as root: Debian's user-mode-linux is fetched, unpacked into a temporary folder, and sees this
# machine's files read-only. Not part of the suite: 40 MB, and not every machine lets it run.
set -eu
cd "$(dirname "$0")/../.."
folder="$(mktemp -d)"
trap 'rm -rf "$folder"' EXIT
(cd "$folder" && apt-get download -qq user-mode-linux >/dev/null 2>&1 && dpkg -x ./*.deb tree)
mkdir "$folder/tree/lib"
mv "$folder/tree/usr/lib/uml/modules" "$folder/tree/lib/modules"
depmod -b "$folder/tree" "$(ls "$folder/tree/lib/modules")"
timeout 300 "$folder/tree/usr/bin/linux.uml" rootfstype=hostfs rootflags=/ ro mem=1024M quiet con=null con0=null,fd:1 \
    init="$PWD/tests/uml/inside.sh" CHECKOUT="$PWD" MODULES="$folder/tree" </dev/null 2>/dev/null |
    tee "$folder/said" | sed -n '/^==/,/^== end/p'
grep -q '^== end: as it should be' "$folder/said"
