#!/bin/sh
# Download Debian packages that tests read or run on a lab node, and unpack them into .venv/packages/NAME. They are not
# installed on this machine, because that would start their services. Each folder also holds the package's dependencies
# that a machine may lack. Needs root for apt's folders. Reports each package that can't be downloaded.
set -eu
cd "$(dirname "$0")/.."

bus="dbus-daemon dbus-bin dbus-system-bus-common libdbus-1-3 libexpat1 libglib2.0-0"
fetch() { # NAME PACKAGE…
    name="$1"
    shift
    folder=".venv/packages/$name"
    [ "$(cat "$folder/.of" 2>/dev/null)" = "$*" ] && return
    fresh="$(mktemp -d)"
    if (cd "$fresh" && apt-get download -qq "$@" >/dev/null 2>&1 && for deb in *.deb; do dpkg -x "$deb" tree; done); then
        rm -rf "$folder" "$fresh/tree/usr/share/doc" "$fresh/tree/usr/share/man" "$fresh/tree/usr/share/locale" \
            "$fresh/tree/usr/bin/prometheus"
        # the machines that run these packages have a merged /usr
        for old in bin sbin lib; do
            [ -d "$fresh/tree/$old" ] || continue
            mkdir -p "$fresh/tree/usr/$old"
            cp -a "$fresh/tree/$old/." "$fresh/tree/usr/$old/"
            rm -rf "${fresh:?}/tree/$old"
        done
        chmod -R a+rX "$fresh/tree"
        echo "$*" >"$fresh/tree/.of"
        mkdir -p .venv/packages
        cp -a "$fresh/tree" "$folder"
    else
        echo "setup: package $name can't be downloaded: its tests are skipped" >&2
    fi
    rm -rf "$fresh"
}

fetch prometheus prometheus
fetch ufw ufw
fetch zsh zsh zsh-common
fetch fish fish fish-common libpcre2-32-0
fetch openssh-server openssh-server openssh-sftp-server libwrap0
# shellcheck disable=SC2086 -- a list of names
{
    fetch dbus $bus
    fetch firewalld firewalld python3-firewall python3-nftables python3-dbus python3-gi libgirepository-1.0-1 \
        gir1.2-glib-2.0 gir1.2-nm-1.0 libnm0 libnftables1 $bus
    fetch network-manager network-manager libnm0 libndp0 libteamdctl0 libmm-glib0 libbluetooth3 libnewt0.52 libslang2 \
        libjansson4 libcurl3-gnutls libpsl5 libreadline8 libpolkit-gobject-1-0 libpolkit-agent-1-0 libudev1 \
        libsystemd0 $bus
    fetch docker.io docker.io tini containerd runc
}
