#!/usr/bin/env bash
# Starts the single node and waits until it serves, then says how to reach it.
set -euo pipefail
cd "$(dirname "$0")/.."

limit=180 # seconds; a first start takes a few, crash recovery of a large database may take more
port=${PGHERD_PORT:-5432}
answer=

give_up() {
  docker logs --tail 40 node1 >&2 || true
  [ -z "$answer" ] || echo "up: pgherd health --ready: $answer" >&2
  echo "up: $1; the whole log: docker logs node1; away with it: make down" >&2
  exit 1
}

if ! docker/compose.sh up -d; then
  echo "up: if port $port is taken, choose another: PGHERD_PORT=5433 make up" >&2
  exit 1
fi

echo "up: waiting for node1 to serve (at most $limit s)"
restarts() { docker inspect -f '{{.RestartCount}}' node1; }
begin=$SECONDS
said=0
restarts_before=$(restarts)
until answer=$(docker exec node1 pgherd health --ready 2>&1); do
  elapsed=$((SECONDS - begin))
  [ "$(restarts)" = "$restarts_before" ] || give_up "node1 does not stay up"
  [ $elapsed -lt $limit ] || give_up "node1 is not ready after $limit s"
  if [ $((elapsed - said)) -ge 10 ]; then
    said=$elapsed
    echo "up: $elapsed s: $(docker logs --tail 1 node1 2>&1 | cut -c1-150)"
  fi
  sleep 0.5
done
echo "up: node1 serves after $((SECONDS - begin)) s"

status=0
docker exec node1 pgherd status || status=$?

echo
published=$(docker port node1 5432/tcp | head -n 1)
host=${published%:*}
[ "$host" != 0.0.0.0 ] || host=127.0.0.1
echo "Connect:  psql -h $host -p ${published##*:} -U postgres"
if docker exec node1 pgherd settings | grep -q '^POSTGRES_PASSWORD .*default$'; then
  echo "Password: mysecretpassword, the default that everybody knows: for trying out only"
fi
echo "Inside:   docker exec -it -u postgres node1 psql"
echo "Away:     make down (keeps the data), make clean (does not)"
exit $status
