#!/usr/bin/env bash
# docker compose for compose/single.yml, whichever of the two generations is there.
set -euo pipefail
cd "$(dirname "$0")/.."

if docker compose version >/dev/null 2>&1; then compose=(docker compose); else compose=(docker-compose); fi
# What the operator wants remembered, where there is something.
[ ! -f compose/.env ] || compose+=(--env-file compose/.env)
exec "${compose[@]}" -p pgherd -f compose/single.yml "$@"
