#!/usr/bin/env bash
# What `make test` and `make trials` run after the lints: the quick tests, then the stories in containers,
# once for each image. PGHERD_TRIALS=1 adds the long ones.
set -euo pipefail
cd "$(dirname "$0")/.."

step() { echo "test: $*"; "$@"; }

step cargo test --locked
docker/image.sh 17 15
for pg in 17 15; do
  export PGHERD_IMAGE=pgherd:$pg
  echo "test: stories in $PGHERD_IMAGE"
  step cargo test --locked --test stories -- --ignored
done
