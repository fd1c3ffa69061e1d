#!/usr/bin/env bash
# docker compose for compose/$STACK.yml, whichever of the two generations is there.
set -euo pipefail
cd "$(dirname "$0")/.."

file=compose/${STACK:-primary-standby}.yml
if [ ! -f "$file" ]; then
  stacks=(compose/*.yml)
  stacks=("${stacks[@]##*/}")
  echo "compose: there is no $file; STACK is one of: ${stacks[*]%.yml}" >&2
  exit 2
fi
if docker compose version >/dev/null 2>&1; then compose=(docker compose); else compose=(docker-compose); fi
# What the operator wants remembered, where there is something.
[ ! -f compose/.env ] || compose+=(--env-file compose/.env)
exec "${compose[@]}" -p pgherd -f "$file" "$@"
