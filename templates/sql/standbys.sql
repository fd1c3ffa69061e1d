-- Who streams from this server; one row without a name where nobody does, none on a standby.
SELECT
    pg_current_wal_lsn()::text AS lsn,
    current_setting('synchronous_standby_names') AS names,
    application_name AS name,
    state = 'streaming' AS streams,
    sync_state = 'sync' AS is_sync,
    flush_lsn::text AS flushed,
    replay_lsn::text AS replayed,
    extract(epoch FROM clock_timestamp() - reply_time)::float8 AS silent_s
FROM (SELECT WHERE NOT pg_is_in_recovery()) AS primary_only
LEFT JOIN pg_stat_replication ON true;
