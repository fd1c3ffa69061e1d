#!/usr/bin/env bash
# What `make test` and `make trials` run after the lints: the quick tests, then the stories in containers:
# all on PostgreSQL 17, those of each kind on 15. PGHERD_TRIALS=1 adds the long ones, and all on 15.
set -euo pipefail
cd "$(dirname "$0")/.."

# Minutes each, and each with shorter ones of its kind beside it.
LONG=(either_side_killed no_commit_waits_long where_a_standby_is_required a_standby_that_may_lack
  failover::all_killed_at_once while_paused goes_back_across while_it_restores about_to_be_decided
  what_the_window while_a_backup)

# The same minute of a soak each time; make soak throws its own dice.
if [ -z "${PGHERD_TRIALS:-}" ]; then
  export PGHERD_SOAK_SEED=${PGHERD_SOAK_SEED:-7} PGHERD_SOAK_MINUTES=${PGHERD_SOAK_MINUTES:-1}
fi

step() { echo "test: $*"; "$@"; }

step cargo test --locked
docker/image.sh 17 15
for pg in 17 15; do
  export PGHERD_IMAGE=pgherd:$pg
  echo "test: stories in $PGHERD_IMAGE"
  only=()
  if [ -z "${PGHERD_TRIALS:-}" ]; then
    for long in "${LONG[@]}"; do only+=(--skip "$long"); done
    if [ "$pg" = 15 ]; then
      only+=(master_first_start official_image one_writer reached secrets slave_first_start master_replaced)
      only+=(a_standby_leads_soon a_primary_that_is_stopped_hands_over a_cluster_comes_back_from_s3)
    fi
  fi
  step cargo test --locked --test stories -- --ignored --test-threads=2 "${only[@]}"
done
