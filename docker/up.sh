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

mapfile -t services < <(docker/compose.sh config --services | sort -V)
nodes=()
proxies=()
for service in "${services[@]}"; do
  if [ -d "compose/$service" ]; then proxies+=("$service"); else nodes+=("$service"); fi
done
[ ${#proxies[@]} = 0 ] || docker/proxies.sh "${PG:-17}" "${proxies[@]}"

# What another stack had, and this one has not, goes; its volumes stay.
if ! docker/compose.sh up -d --remove-orphans; then
  echo "up: if a port is taken, choose others, e.g. PGHERD_PORT=7432 make up; compose/README.md lists them" >&2
  exit 1
fi
data=()
for node in "${nodes[@]}"; do
  await "$node"
  if has_postgres "$node"; then data+=("$node"); fi
done

# Through each, whoever takes writes is reached; asked from a node, as repmgr, whose password is there.
port_of() { case $1 in haproxy) echo 5000 ;; pgbouncer) echo 6432 ;; esac; }
for proxy in "${proxies[@]}"; do
  begin=$SECONDS
  until answer=$(docker exec -u postgres -e PGCONNECT_TIMEOUT=2 "${data[0]}" \
    psql -XAtqw -h "$proxy" -p "$(port_of "$proxy")" -U repmgr -d repmgr -c 'SELECT 1' 2>&1); do
    [ $((SECONDS - begin)) -lt 30 ] || give_up "$proxy" "nobody who takes writes is reached through $proxy"
    sleep 0.2
  done
  echo "up: $proxy is ready"
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

published_at() { # CONTAINER PORT: as psql's options
  local published
  published=$(docker port "$1" "$2/tcp" | head -n 1)
  echo "-h ${published%:*} -p ${published##*:}" | sed 's/-h 0\.0\.0\.0/-h 127.0.0.1/'
}

echo
before='Connect: '
for proxy in "${proxies[@]}"; do
  echo "$before psql $(published_at "$proxy" "$(port_of "$proxy")") -U postgres, by $proxy to whoever leads"
  before='     or: '
done
if [ ${#data[@]} = 1 ]; then
  echo "$before psql -h ${hosts[0]} -p ${ports[0]} -U postgres"
else
  echo "$before psql 'host=$(all "${hosts[@]}") port=$(all "${ports[@]}") user=postgres target_session_attrs=read-write'"
  echo "          (the same without anything in between; without the last word, to whoever answers)"
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
