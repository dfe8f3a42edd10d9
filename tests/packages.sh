#!/bin/sh
# Debian packages that tests look into or run on a lab node and that must not be installed here, for their installation
# starts a service: fetched and unpacked into .venv/packages/NAME. As root (apt's own folders); what can't be had is said.
set -eu
cd "$(dirname "$0")/.."
for name in prometheus ufw; do
    folder=".venv/packages/$name"
    [ -d "$folder" ] && continue
    fresh="$(mktemp -d)"
    if (cd "$fresh" && apt-get download -qq "$name" >/dev/null 2>&1 && dpkg -x ./*.deb tree); then
        mkdir -p .venv/packages
        rm -rf "$fresh/tree/usr/share/doc" "$fresh/tree/usr/share/man" "$fresh/tree/usr/bin/prometheus"
        cp -a "$fresh/tree" "$folder"
    else
        echo "setup: package $name can't be had: its tests will say so" >&2
    fi
    rm -rf "$fresh"
done
