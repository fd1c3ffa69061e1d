# What brings a backup back without pgherd: barman, and Postgres' own recovery.
set -euo pipefail
if [ "$(id -u)" = 0 ]; then
  install -d -o barman -g barman -m 0700 "$PGDATA"
  cat >/tmp/barman.conf <<CONF
[barman]
barman_home = /home/barman/data
barman_lock_directory = /tmp
barman_user = barman
configuration_files_directory = /tmp/none
log_level = WARNING
[pgherd]
description = restored
conninfo = host=nobody user=nobody
streaming_conninfo = host=nobody user=nobody
backup_method = postgres
streaming_archiver = on
slot_name = barman
CONF
  install -d /tmp/none
  setpriv --reuid=barman --regid=barman --init-groups env HOME=/home/barman \
    barman -c /tmp/barman.conf recover pgherd latest "$PGDATA"
  chown -R postgres:postgres "$PGDATA"
  exec setpriv --reuid=postgres --regid=postgres --init-groups bash -c "$STEPS"
fi
exec postgres -c listen_addresses='*'
