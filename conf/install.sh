#!/bin/sh
# Install cnictl from this bundle, without a registry and without pip. `sh install.sh --help` shows the options.
set -eu
here="$(cd "$(dirname "$0")" && pwd)"
for python in /usr/bin/python3 /usr/bin/python3.1[1-9] /usr/local/bin/python3; do
    [ -x "$python" ] || continue
    if "$python" -I -S -c 'import sys; sys.exit(sys.version_info < (3, 11))'; then
        exec "$python" -I -S -B "$here/install.py" "$@"
    fi
done
echo "install.sh: there is no Python 3.11 or newer in /usr/bin or /usr/local/bin" >&2
echo "  hint: install the distribution's python3 (Debian 12 or newer: apt install python3)" >&2
exit 1
