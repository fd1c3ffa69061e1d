#!/usr/bin/env bash
# What `make test` and `make trials` run after the lints: the quick tests, then the stories in containers:
# all on PostgreSQL 17, those of each kind on 15. PGHERD_TRIALS=1 adds the long ones, and all on 15.
set -euo pipefail
cd "$(dirname "$0")/.."

step() { echo "test: $*"; "$@"; }

step cargo test --locked
docker/image.sh 17 15
for pg in 17 15; do
  export PGHERD_IMAGE=pgherd:$pg
  echo "test: stories in $PGHERD_IMAGE"
  only=()
  if [ "$pg" = 15 ] && [ -z "${PGHERD_TRIALS:-}" ]; then
    only=(master_first_start official_image one_writer secrets slave_first_start master_replaced)
  fi
  step cargo test --locked --test stories -- --ignored --test-threads=2 "${only[@]}"
done
