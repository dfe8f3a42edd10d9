#!/bin/sh
# Install what `cnictl lab demo` needs, and with `--tests` what the test suite needs: missing Debian packages (takes root
# or sudo), and a virtual environment in .venv with this checkout installed. Safe to run again.
set -eu
cd "$(dirname "$0")/.."

# a command or file that the package contains : the package
wanted="/usr/bin/python3:python3 ensurepip:python3-venv ip:iproute2 nft:nftables iptables:iptables ping:iputils-ping \
sysctl:procps"
if [ "${1:-}" = --tests ]; then
    wanted="$wanted /usr/lib/cni/bridge:containernetworking-plugins podman:podman containerd:containerd runc:runc \
conmon:conmon busybox:busybox-static strace:strace systemd-analyze:systemd setpriv:util-linux git:git iperf3:iperf3 ethtool:ethtool \
openssl:openssl ssh:openssh-client"
fi

PATH="$PATH:/usr/sbin:/sbin"
missing=""
for pair in $wanted; do
    proof="${pair%%:*}"
    case "$proof" in
    ensurepip) /usr/bin/python3 -c "import ensurepip, venv" 2>/dev/null && continue ;;
    /*) [ -e "$proof" ] && continue ;;
    *) command -v "$proof" >/dev/null 2>&1 && continue ;;
    esac
    missing="$missing ${pair##*:}"
done
if [ -n "$missing" ]; then
    as_root=""
    [ "$(id -u)" = 0 ] || as_root=sudo
    if [ -n "$as_root" ] && ! command -v sudo >/dev/null 2>&1; then
        echo "setup: these packages are missing, and installing them takes root:$missing" >&2
        exit 1
    fi
    echo "setup: installing$missing" >&2
    $as_root apt-get update -qq
    # shellcheck disable=SC2086 -- a list of names
    $as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $missing >/dev/null
fi

extra=""
[ "${1:-}" = --tests ] && extra="[test]"
stamp=".venv/.installed$extra"
if [ ! -e "$stamp" ] || [ pyproject.toml -nt "$stamp" ]; then
    echo "setup: making .venv" >&2
    [ -x .venv/bin/pip ] || /usr/bin/python3 -m venv .venv
    .venv/bin/pip install -q --disable-pip-version-check -e ".$extra"
    : >"$stamp"
fi
# mypy checks plugin/ under its import name
mkdir -p .venv/typed && ln -sfn ../../plugin .venv/typed/cnictl_plugin
[ "${1:-}" = --tests ] && [ "$(id -u)" = 0 ] && sh tests/packages.sh
# Lab nodes see this checkout read-only. Without bytecode in it, every command there would compile it again.
.venv/bin/python -m compileall -q cnictl plugin conf
