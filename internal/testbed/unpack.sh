#!/bin/sh
# unpack RELEASE DIR PACKAGE...: put the programs of another Debian release, with the
# shared libraries and the loader they were built for, into the folder DIR, which must not
# be there. DIR appears whole, by one rename. Nothing is installed and no package's script
# is run; apt checks what it fetches. DIR can't be moved later: the programs hold its path.
set -eu
export LC_ALL=C
PATH=$PATH:/usr/sbin:/sbin
umask 022
release=$1 dir=$2
shift 2
arch=$(dpkg --print-architecture)
case $arch in
amd64) triplet=x86_64-linux-gnu loader=ld-linux-x86-64.so.2 ;;
arm64) triplet=aarch64-linux-gnu loader=ld-linux-aarch64.so.1 ;;
*) echo "no programs for $arch" >&2; exit 1 ;;
esac
new=$dir.new
mkdir -p "$new/apt/lists/partial" "$new/apt/archives/partial" "$new/root"
# Debian's mirror as this machine has it; others have no such release.
sites=$(apt-get indextargets --format '$(SITE)' 'Created-By: Packages' | grep -v 'security/*$' || :)
mirror=$(echo "$sites" | grep -m 1 '/debian/*$' || echo "$sites" | head -n 1)
[ -n "$mirror" ] || { echo "apt knows of no mirror of Debian" >&2; exit 1; }
keys=/usr/share/keyrings/debian-archive-keyring.gpg
[ -e "$keys" ] || { echo "$keys is missing: apt-get install debian-archive-keyring" >&2; exit 1; }
echo "deb [signed-by=$keys] $mirror $release main" >"$new/apt/sources.list"
: >"$new/apt/status"
# The machine's own settings hold beside these: how it gets to its mirror is among them.
cat >"$new/apt/conf" <<END
Dir::State "$new/apt";
Dir::State::status "$new/apt/status";
Dir::Cache "$new/apt";
Dir::Cache::archives "$new/apt/archives";
Dir::Etc::sourcelist "$new/apt/sources.list";
Dir::Etc::sourceparts "/dev/null";
Dir::Etc::preferences "/dev/null";
Dir::Etc::preferencesparts "/dev/null";
APT::Update::Error-Mode "any";
APT::Sandbox::User "";
Acquire::Languages "none";
Acquire::Retries "3";
Acquire::http::Timeout "30";
Debug::NoLocking "true";
END
export APT_CONFIG="$new/apt/conf"
get() { apt-get -q -y -o APT::Default-Release= -o APT::Install-Recommends=false -o APT::Install-Suggests=false "$@"; }
get update
# Of everything that the packages depend on, what a program loads is wanted, and no
# interpreter with its modules.
plan=$(get --print-uris install "$@")
wanted=$(echo "$plan" | sed -n "s/^'[^']*' \([^_]*\)_.*/\1/p" |
	grep -e '^lib' -e '^zlib' | grep -v -e '^libperl' -e '^libpython' -e '-perl$' -e '^libjs-' -e '^libpam' -e '^libsemanage' -e '^libsepol' || :)
cd "$new/apt/archives"
# shellcheck disable=SC2086 # names
get download "$@" patchelf libc6 libgcc-s1 libstdc++6 $wanted
for deb in *.deb; do
	dpkg-deb -x "$deb" "$new/root"
done
lib=$new/root/usr/lib/$triplet
[ -e "$lib/$loader" ] || lib=$new/root/lib/$triplet
patch() { "$lib/$loader" --library-path "$lib" "$new/root/usr/bin/patchelf" "$@"; }
inside=${lib#"$new/root"}
find "$new/root/usr/bin" "$new/root/usr/sbin" "$new/root/usr/libexec" "$new/root/usr/lib/condor" -type f -perm /111 2>/dev/null |
	while read -r file; do
		[ "${file##*/}" != patchelf ] || continue
		patch --print-interpreter "$file" >/dev/null 2>&1 || continue
		patch --set-interpreter "$dir$inside/$loader" --force-rpath --set-rpath "$dir$inside:$dir/usr/lib/condor:$dir/usr/lib" "$file"
	done
rm -f "$new/root/usr/bin/patchelf"
mv -T "$new/root" "$dir"
rm -rf "$new"
