#!/usr/bin/env bash
# A node as pgherd's are: Postgres, a voter's etcd beside it, and who decides. The heartbeat is the one
# that pgherd gives etcd.
set -euo pipefail
name=$(hostname)
export PATRONI_NAME=$name PATRONI_RESTAPI_CONNECT_ADDRESS=$name:8008 PATRONI_POSTGRESQL_CONNECT_ADDRESS=$name:5432

as() { # USER COMMAND...
  setpriv --reuid="$1" --regid="$1" --init-groups -- "${@:2}"
}

install -d -o etcd -g etcd -m 0700 /var/lib/postgresql/etcd
as etcd etcd --name "$name" --data-dir /var/lib/postgresql/etcd --logger zap --log-level warn \
  --listen-client-urls http://0.0.0.0:2379 --advertise-client-urls "http://$name:2379" \
  --listen-peer-urls http://0.0.0.0:2380 --initial-advertise-peer-urls "http://$name:2380" \
  --initial-cluster node1=http://node1:2380,node2=http://node2:2380,node3=http://node3:2380 \
  --initial-cluster-state new --heartbeat-interval 100 --election-timeout 1000 &

# A container that was killed leaves files of pids behind that are others' now.
rm -f /var/run/postgresql/.s.PGSQL.5432*
exec setpriv --reuid=postgres --regid=postgres --init-groups -- patroni /etc/patroni/bench.yml
