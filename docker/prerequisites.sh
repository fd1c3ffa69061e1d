#!/usr/bin/env bash
# Makes sure that building and running can work: as root on Debian or Ubuntu it installs what is missing
# and starts the engine; otherwise it names what is missing and how to get it. Silent when all is there.
# `prerequisites.sh tests` sees to what only tests need, too, and `… trials` to what only the long ones do.
set -euo pipefail
cd "$(dirname "$0")/.."

say() { echo "prerequisites: $*"; }
have() { command -v "$1" >/dev/null 2>&1; }
installable() { [ -n "$(apt-cache show --no-all-versions "$1" 2>/dev/null)" ]; }

have_compose() { docker compose version >/dev/null 2>&1 || docker-compose version >/dev/null 2>&1; }

# A package for each thing that is missing; "a|b" is whichever of the two the release has.
missing_packages() {
  have docker || echo 'docker.io docker-cli?'
  have_compose || echo 'docker-compose-v2|docker-compose'
  have mmdebstrap || echo 'mmdebstrap'
  [ -r /usr/share/keyrings/debian-archive-keyring.gpg ] || echo 'debian-archive-keyring'
  have cc || echo 'gcc libc6-dev'
  [ -s /etc/ssl/certs/ca-certificates.crt ] || echo 'ca-certificates'
}

install_missing() {
  local wanted packages=() package
  wanted=$(missing_packages | xargs)
  [ -n "$wanted" ] || return 0
  if [ "$(id -u)" -ne 0 ] || ! have apt-get; then
    wanted=${wanted//\?/}
    say "missing: ${wanted//|/ or }" >&2
    say "as root on Debian or Ubuntu, 'make' installs these; elsewhere install what they stand for" >&2
    exit 1
  fi
  say "apt-get update"
  apt-get update -qq
  for package in $wanted; do
    case $package in
      # Debian splits the client off since 13.
      *\?) if installable "${package%\?}"; then packages+=("${package%\?}"); fi ;;
      *\|*) if installable "${package%|*}"; then packages+=("${package%|*}"); else packages+=("${package#*|}"); fi ;;
      *) packages+=("$package") ;;
    esac
  done
  say "apt-get install ${packages[*]}"
  DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends "${packages[@]}" >/dev/null
}

# Of Debian's package of Prometheus only the checker of rules and metrics: all of it would start a server.
# Without it those checks are skipped, and say so.
ensure_promtool() {
  local directory
  have promtool && return 0
  if [ "$(id -u)" -eq 0 ] && have apt-get && installable prometheus; then
    say "promtool, of Debian's package prometheus"
    directory=$(mktemp -d)
    (cd "$directory" && apt-get download -qq prometheus && dpkg-deb -x prometheus_*.deb . &&
      install -m 755 usr/bin/promtool /usr/local/bin/promtool) >/dev/null 2>&1 || true
    rm -rf "$directory"
  fi
  have promtool || say "no promtool (apt-get install prometheus): compose/monitoring is not checked"
}

# Some 400 MB with what it needs, for one story: installed for the trials, else named.
ensure_chromium() {
  if [ "$1" = trials ] && ! have chromium && [ "$(id -u)" -eq 0 ] && have apt-get && installable chromium; then
    say "chromium, of Debian's"
    DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends chromium >/dev/null 2>&1 || true
  fi
  have chromium || have chromium-browser || have google-chrome ||
    say "no Chromium (apt-get install chromium): the story of the page is skipped"
}

# Rust is the user's choice of place and version, so it is named, not installed.
require_rust() {
  local wanted found
  wanted=$(sed -n 's/^rust-version *= *"\([0-9.]*\)".*/\1/p' Cargo.toml)
  found=$(rustc --version 2>/dev/null | cut -d' ' -f2) || true
  if ! have cargo || [ "$(printf '%s\n' "$wanted" "${found:-0}" | sort -V | head -n 1)" != "$wanted" ]; then
    say "Rust ${wanted} or newer is needed, found: ${found:-none}; get it from https://rustup.rs," >&2
    say "or, where image registries can be reached, build without: docker build -f docker/Dockerfile ." >&2
    exit 1
  fi
}

engine_answers() { timeout 10 docker info >/dev/null 2>&1; }

await_engine() {
  local deadline=$((SECONDS + $1))
  until engine_answers; do
    [ $SECONDS -lt $deadline ] || return 1
    sleep 0.5
  done
}

ensure_engine() {
  engine_answers && return 0
  if [ "$(id -u)" -ne 0 ]; then
    say "the docker engine does not answer; as root: systemctl start docker, usermod -aG docker $(id -un)" >&2
    exit 1
  fi
  if [ -d /run/systemd/system ]; then
    say "systemctl start docker"
    systemctl start docker || true
    await_engine 60 && return 0
  elif [ -x /etc/init.d/docker ]; then
    say "service docker start"
    # The init script fails where it may not raise its limits, a container for instance.
    if service docker start >/dev/null 2>&1 && await_engine 30; then return 0; fi
  fi
  say "dockerd, its log in /var/log/dockerd.log"
  setsid dockerd >/var/log/dockerd.log 2>&1 </dev/null &
  await_engine 60 && return 0
  tail -n 5 /var/log/dockerd.log >&2
  say "the docker engine does not start" >&2
  exit 1
}

install_missing
require_rust
ensure_engine
case "${1:-}" in
  tests | trials)
    ensure_promtool
    ensure_chromium "$1"
    ;;
esac
