#!/bin/sh
# cnictl-bridge: starts the CNI plugin. Written by `cnictl plugin install`, which replaces it whole.
# Builtins alone up to exec, for this runs at every pod's start and end.
library=@LIBRARY@
python=@PYTHON@
[ -x "$python" ] || python=@FALLBACK@
error=@NO_PYTHON@
if [ -x "$python" ]; then
    error=@NO_LIBRARY@
    [ -r "$library/cnictl_plugin/main.py" ] && exec "$python" -IS -B -c @PROGRAM@
fi
printf '%s\n' "$error"
exit 1
