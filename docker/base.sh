#!/usr/bin/env bash
# Makes sure that the base image (debian:SUITE-slim) is there: pulled where a registry answers, else
# made of Debian's own packages, so that building needs nothing but an apt mirror.
set -euo pipefail

suite=${1:?usage: docker/base.sh SUITE}
image=debian:$suite-slim
keyring=/usr/share/keyrings/debian-archive-keyring.gpg

docker image inspect "$image" >/dev/null 2>&1 && exit 0

# The question is cheap and the answer quick; a pull without a registry may hang for minutes.
if timeout 8 docker manifest inspect "$image" >/dev/null 2>&1; then
  echo "base: pulling $image"
  timeout 300 docker pull -q "$image" && exit 0
fi

[ -r "$keyring" ] || { echo "base: no $keyring: apt-get install debian-archive-keyring" >&2; exit 1; }

echo "base: making $image with mmdebstrap"
log=$(mktemp)
trap 'rm -f "$log"' EXIT

# Bookworm would otherwise merge /usr with a package that drags in perl and e2fsprogs: 48 MB.
hooks=()
merged=/usr/share/mmdebstrap/hooks/maybe-merged-usr
[ -d "$merged" ] && hooks=(--hook-dir="$merged")

# Without a mirror named, mmdebstrap takes Debian's own, with a stable suite's updates and security. These
# sources stay in the image: what builds on it installs from the same suites.
# The path-excludes are those of the slim image: no manuals, no translations, but copyrights.
# shellcheck disable=SC2016  # mmdebstrap's hooks expand $1 themselves
if ! mmdebstrap --variant=minbase "${hooks[@]}" --dpkgopt='path-exclude=/usr/share/man/*' \
  --dpkgopt='path-exclude=/usr/share/info/*' --dpkgopt='path-exclude=/usr/share/locale/*' \
  --dpkgopt='path-exclude=/usr/share/doc/*' --dpkgopt='path-include=/usr/share/doc/*/copyright' \
  --dpkgopt='path-exclude=/usr/share/lintian/*' --dpkgopt=force-unsafe-io \
  --aptopt='Acquire::Languages "none"' --aptopt='Acquire::Retries "3"' \
  --customize-hook='printf "#!/bin/sh\nexit 101\n" >"$1/usr/sbin/policy-rc.d"' \
  --customize-hook='chmod 755 "$1/usr/sbin/policy-rc.d"' \
  --customize-hook='rm -rf "$1"/var/log/* "$1/var/cache/ldconfig/aux-cache" "$1/etc/hostname" "$1/etc/resolv.conf"' \
  --keyring="$keyring" "$suite" - 2>"$log" |
  docker import --change 'CMD ["bash"]' --change 'LABEL pgherd=1' - "$image" >/dev/null
then
  tail -n 20 "$log" >&2
  # A tar that broke off is imported all the same; half a base would fail in stranger ways later.
  docker image rm "$image" >/dev/null 2>&1 || true
  echo "base: mmdebstrap could not make $suite: is an apt mirror reachable (apt-get update)?" >&2
  exit 1
fi
