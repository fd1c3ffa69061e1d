#!/usr/bin/env bash
# docker compose for compose/$STACK.yml, and compose/with-$WITH.yml, whichever of the two generations is there.
set -euo pipefail
cd "$(dirname "$0")/.."

files=()
add() { # VARIABLE PREFIX NAME
  local file=compose/$2$3.yml there name names=()
  if [ ! -f "$file" ]; then
    for there in "compose/$2"*.yml; do
      name=${there#compose/"$2"}
      [[ -z $2 && $name == with-* ]] || names+=("${name%.yml}")
    done
    echo "compose: there is no $file; $1 is one of: ${names[*]}" >&2
    exit 2
  fi
  files+=(-f "$file")
}
add STACK '' "${STACK:-primary-standby}"
[ -z "${WITH:-}" ] || add WITH with- "$WITH"
if docker compose version >/dev/null 2>&1; then compose=(docker compose); else compose=(docker-compose); fi
# What the operator wants remembered, where there is something.
[ ! -f compose/.env ] || compose+=(--env-file compose/.env)
exec "${compose[@]}" -p pgherd "${files[@]}" "$@"
