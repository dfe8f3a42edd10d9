#!/bin/sh
# cnictl-bridge: starts the CNI plugin. Written by `cnictl plugin install`, which overwrites it.
# It uses only builtins up to exec, because it runs at every pod's start and end.
library=@LIBRARY@
error=@NO_PYTHON@
for python in "$library/boot/python" @PYTHONS@; do
    [ -x "$python" ] || continue
    error=@NO_LIBRARY@
    [ -r "$library/cnictl_plugin/main.py" ] && exec "$python" -IS -B -X utf8 -c @PROGRAM@
done
printf '%s\n' "$error"
exit 1
