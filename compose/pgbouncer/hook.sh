#!/bin/sh
# For /etc/pgherd/hooks.d of each data node: PgBouncer holds its clients back while the lead is handed over, so
# that they see a delay and no error.
set -u

# PGPASSFILE has repmgr's password.
export PGCONNECT_TIMEOUT=2
pgbouncer() { psql -XAtqw -h pgbouncer -p 6432 -U repmgr -d pgbouncer -c "$1"; }
haproxy_leads_to_the_primary() {
  [ "$(psql -XAtqw -h haproxy -p 5000 -U repmgr -d repmgr -c 'SELECT NOT pg_is_in_recovery()' 2>/dev/null)" = t ]
}

case $HOOK_EVENT:$HOOK_ROLE in
  before-handover:*)
    # Until what is under way has ended; pgherd waits for that as long as PGHERD_HOOK_TIMEOUT says.
    pgbouncer PAUSE
    ;;
  role-changed:primary)
    # HAProxy takes a moment to see it; that it never does is no reason to keep anybody waiting. Together with what
    # follows it has to be over within PGHERD_HOOK_TIMEOUT.
    end=$(($(date +%s) + 4))
    until haproxy_leads_to_the_primary || [ "$(date +%s)" -ge "$end" ]; do sleep 0.1; done
    # It refuses where nothing was paused.
    pgbouncer RESUME 2>/dev/null || true
    ;;
esac
