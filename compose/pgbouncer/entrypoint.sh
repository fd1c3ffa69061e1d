#!/bin/bash
# PgBouncer with the passwords of the nodes' own variables, or of the files that these name.
set -eu

# NAME DEFAULT
value() {
  eval "file=\${$1_FILE:-} text=\${$1:-}"
  # shellcheck disable=SC2154  # eval has set it
  [ -z "$file" ] || text=$(cat "$file")
  printf '%s' "${text:-$2}" | sed 's/"/""/g'
}

umask 077
cat >/run/pgbouncer/userlist.txt <<EOT
"postgres" "$(value POSTGRES_PASSWORD mysecretpassword)"
"repmgr" "$(value REPMGR_PASSWORD iamrepmgr)"
EOT
unset POSTGRES_PASSWORD REPMGR_PASSWORD

# Prints what PgBouncer says, and ends a pause that nobody has ended for PGBOUNCER_PAUSE_AT_MOST seconds: whoever made
# it may be gone, or may not reach us. Only `PAUSE` of everything, which is the hook's: `PAUSE database` is people's.
watch() {
  local line since=
  while true; do
    if IFS= read -r -t 1 line; then
      printf '%s\n' "$line"
      case $line in
        *" PAUSE command issued"*) since=$SECONDS ;;
        *" RESUME command issued"*) since= ;;
      esac
    elif [ $? -le 128 ]; then
      return # It has ended.
    fi
    if [ -n "$since" ] && [ $((SECONDS - since)) -ge "$1" ]; then
      echo "entrypoint: paused for $1 s (PGBOUNCER_PAUSE_AT_MOST), and nobody says RESUME: goes on"
      since=
      kill -USR2 1 # RESUME
    fi
  done
}
exec pgbouncer /etc/pgbouncer/pgbouncer.ini > >(watch "${PGBOUNCER_PAUSE_AT_MOST:-30}") 2>&1
