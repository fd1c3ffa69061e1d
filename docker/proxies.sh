#!/usr/bin/env bash
# Builds what may stand before the nodes, on the Debian release of that PostgreSQL: pgherd-haproxy:17 and so on.
set -euo pipefail
cd "$(dirname "$0")/.."

pg=${1:?usage: docker/proxies.sh PG NAME...}
shift
case $pg in
  17) suite=trixie ;;
  15) suite=bookworm ;;
  *) echo "proxies: no Debian release for PostgreSQL $pg: PG is 17 or 15" >&2; exit 2 ;;
esac
docker/base.sh "$suite"

log=$(mktemp)
trap 'rm -f "$log"' EXIT
for name in "$@"; do
  image=pgherd-$name:$pg
  before=$(docker image inspect -f '{{.Id}}' "$image" 2>/dev/null) || true
  [ -n "$before" ] || echo "proxies: building $image on debian:$suite-slim"
  if ! docker build --build-arg "BASE=debian:$suite-slim" -t "$image" "compose/$name" >"$log" 2>&1; then
    tail -n 30 "$log" >&2
    exit 1
  fi
  after=$(docker image inspect -f '{{.Id}}' "$image")
  # The one of before would stay for ever, without a name. One in use does stay.
  if [ -n "$before" ] && [ "$before" != "$after" ]; then docker image rm "$before" >/dev/null 2>&1 || true; fi
done
