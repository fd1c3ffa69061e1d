#!/usr/bin/env bash
# Starts the stack and waits until every node does what it is for, then says how to reach it.
set -euo pipefail
cd "$(dirname "$0")/.."

limit=180 # seconds for each node; a first start takes a few, crash recovery or a clone of much data more
answer=

give_up() { # NODE REASON
  docker logs --tail 40 "$1" >&2 || true
  [ -z "$answer" ] || echo "up: $answer" >&2
  echo "up: $2; the whole log: docker logs $1; away with all: make down" >&2
  exit 1
}

restarts() { docker inspect -f '{{.RestartCount}}' "$1"; }
has_postgres() { [ "$(docker exec "$1" printenv PGHERD_ROLE || true)" != backup ]; }

# Ready; and a slave receives the master's WAL.
does_its_work() {
  docker exec "$1" pgherd health --ready || { echo "pgherd health --ready fails"; return 1; }
  has_postgres "$1" || return 0
  local streams
  streams=$(docker exec -u postgres "$1" psql -XqAt -c "SELECT NOT pg_is_in_recovery()
    OR EXISTS (SELECT FROM pg_stat_wal_receiver WHERE status = 'streaming')") || return 1
  [ "$streams" = t ] || { echo "it serves, and receives nothing from a master"; return 1; }
}

await() { # NODE
  local node=$1 begin=$SECONDS said=0 elapsed before
  echo "up: waiting for $node (at most $limit s)"
  before=$(restarts "$node")
  until answer=$(does_its_work "$node" 2>&1); do
    elapsed=$((SECONDS - begin))
    [ "$(restarts "$node")" = "$before" ] || give_up "$node" "$node does not stay up"
    [ $elapsed -lt $limit ] || give_up "$node" "$node is not ready after $limit s"
    if [ $((elapsed - said)) -ge 10 ]; then
      said=$elapsed
      echo "up: $node, $elapsed s: $(docker logs --tail 1 "$node" 2>&1 | cut -c1-150)"
    fi
    sleep 0.5
  done
  echo "up: $node is ready after $((SECONDS - begin)) s"
}

# What another stack had, and this one has not, goes; its volumes stay.
if ! docker/compose.sh up -d --remove-orphans; then
  echo "up: if a port is taken, choose others: PGHERD_PORT=6432 PGHERD_STANDBY_PORT=6433 make up" >&2
  exit 1
fi
mapfile -t nodes < <(docker/compose.sh config --services | sort -V)
data=()
for node in "${nodes[@]}"; do
  await "$node"
  if has_postgres "$node"; then data+=("$node"); fi
done

# Each node looks at the others every few seconds.
begin=$SECONDS
until [[ $(docker exec "${data[0]}" pgherd status --json) == *'"state": "healthy"'* ]]; do
  [ $((SECONDS - begin)) -lt 30 ] || break # What is wrong stands in the table.
  sleep 0.2
done

status=0
docker exec "${data[0]}" pgherd status || status=$?

hosts=()
ports=()
for node in "${data[@]}"; do
  published=$(docker port "$node" 5432/tcp | head -n 1)
  host=${published%:*}
  [ "$host" != 0.0.0.0 ] || host=127.0.0.1
  hosts+=("$host")
  ports+=("${published##*:}")
done
all() { local IFS=,; echo "$*"; }

echo
if [ ${#data[@]} = 1 ]; then
  echo "Connect:  psql -h ${hosts[0]} -p ${ports[0]} -U postgres"
else
  echo "Connect:  psql 'host=$(all "${hosts[@]}") port=$(all "${ports[@]}") user=postgres target_session_attrs=read-write'"
  echo "          (that is to whoever leads; without the last word, to whoever answers)"
fi
settings=$(docker exec "${data[0]}" pgherd settings)
if grep -q '^POSTGRES_PASSWORD .*default$' <<<"$settings"; then
  echo "Password: mysecretpassword, the default that everybody knows: for trying out only"
fi
page=$(docker port "${data[0]}" 8008/tcp 2>/dev/null | head -n 1) || true
[ -z "$page" ] || echo "See:      http://$page/ in a browser"
echo "Inside:   docker exec -it -u postgres ${data[0]} psql"
echo "Away:     make down (keeps the data), make clean (does not)"
exit "$status"
