#!/bin/sh
# Build cnictl's Debian packages into dist/. This needs Debian 12 with the packages in Build-Depends of `control`, and a
# registry for the locked wheels. The same sources and SOURCE_DATE_EPOCH give the same packages, byte for byte.
set -eu
cd "$(dirname "$0")/../.."

tracked() {
    git ls-files -z --cached --others --exclude-standard 2>/dev/null || find . -type f -not -path './.*' -print0
}
# 0.2.0.dev0 comes before 0.2.0 (deb-version(7))
version="$(sed -n 's/^__version__ = "\(.*\)"$/\1/p' cnictl/__init__.py | sed 's/\.dev/~dev/')"
SOURCE_DATE_EPOCH="${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct 2>/dev/null || stat -c %Y CHANGELOG.md)}"
export SOURCE_DATE_EPOCH

tree="$(mktemp -d)"
trap 'rm -rf "$tree"' EXIT
source="$tree/cnictl-$version"
mkdir "$source"
tracked | tar --null --ignore-failed-read -T - -cf - | tar -C "$source" -xf -
cp -r "$source/conf/debian" "$source/debian"
rm -r "$source/conf/debian"
cat >"$source/debian/changelog" <<CHANGES
cnictl ($version) unstable; urgency=medium

  * See CHANGELOG.md of the sources for the changes.

 -- $(sed -n 's/^Maintainer: //p' conf/debian/control)  $(date -u -R -d "@$SOURCE_DATE_EPOCH")
CHANGES
(cd "$source" && dpkg-buildpackage --build=binary --no-sign)
mkdir -p dist
rm -f dist/cnictl*.deb
cp "$tree"/*.deb dist/
ls dist/*.deb
