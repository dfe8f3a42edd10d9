#!/bin/sh
# Test doctor's check for a full neighbour table on a separate kernel, because namespaces share the machine's table.
# `make neighbours` runs it as root. It fetches Debian's user-mode-linux and unpacks it into a temporary folder. The
# kernel sees this machine's files read-only. This is not part of the suite: it fetches 40 MB, and not every machine
# can run it.
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
