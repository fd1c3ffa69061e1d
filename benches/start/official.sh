# What the official image does at its first start, to the same effect and in our own words: initdb with a
# password file, a rule for everybody, a server on the socket alone, the database, a stop, the server.
set -euo pipefail
if [ "$(id -u)" = 0 ]; then
  install -d -m 0700 -o postgres "$PGDATA"
  find "$PGDATA" ! -user postgres -exec chown postgres {} +
  exec setpriv --reuid=postgres --regid=postgres --init-groups bash -c "$STEPS"
fi
if [ ! -s "$PGDATA/PG_VERSION" ]; then
  initdb --username=postgres --pwfile=<(printf '%s\n' "$POSTGRES_PASSWORD")
  printf '\nhost all all all scram-sha-256\n' >>"$PGDATA/pg_hba.conf"
  pg_ctl -w -o "-c listen_addresses='' -p 5432" start
  psql -v ON_ERROR_STOP=1 --no-psqlrc -c 'CREATE DATABASE app'
  pg_ctl -w -m fast stop
fi
exec postgres -c listen_addresses='*'
