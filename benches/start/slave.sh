# The least that makes a slave and serves: pg_basebackup with pgherd's options, the server.
set -euo pipefail
if [ "$(id -u)" = 0 ]; then
  exec setpriv --reuid=postgres --regid=postgres --init-groups bash -c "$STEPS"
fi
if [ ! -s "$PGDATA/PG_VERSION" ]; then
  pg_basebackup --pgdata="$PGDATA" --dbname="$MASTER" --wal-method=stream --create-slot --slot=bare \
    --checkpoint=fast --no-manifest --no-password
  printf "primary_conninfo = '%s'\nprimary_slot_name = 'bare'\n" "$MASTER" >>"$PGDATA/postgresql.auto.conf"
  touch "$PGDATA/standby.signal"
fi
exec postgres -c listen_addresses='*'
