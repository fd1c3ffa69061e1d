-- How our own server is, in one look.
SELECT
    in_recovery,
    -- A primary's WAL file is named after the timeline that it writes.
    CASE WHEN NOT in_recovery THEN left(pg_walfile_name(pg_current_wal_lsn()), 8) END AS writes,
    -- What a standby has received on, checkpointed on or replayed to, whichever is newest.
    greatest(
        (SELECT received_tli FROM pg_stat_get_wal_receiver()),
        (SELECT timeline_id FROM pg_control_checkpoint()),
        (SELECT min_recovery_end_timeline FROM pg_control_recovery())
    ) AS replays,
    CASE WHEN in_recovery THEN pg_last_wal_replay_lsn() ELSE pg_current_wal_lsn() END::text AS lsn,
    (SELECT system_identifier FROM pg_control_system()) AS system,
    -- It has tried every place where WAL could be, and tries again in a while.
    EXISTS (
        SELECT FROM pg_stat_activity
        WHERE backend_type = 'startup' AND wait_event = 'RecoveryRetrieveRetryInterval'
    ) AS waits_for_wal,
    receiver.sender_host AS host,
    receiver.sender_port AS port,
    CASE
        WHEN NOT in_recovery OR pg_last_wal_receive_lsn() = pg_last_wal_replay_lsn() THEN 0
        ELSE extract(epoch FROM now() - pg_last_xact_replay_timestamp())
    END::float8 AS lag_seconds
FROM pg_is_in_recovery() AS in_recovery
LEFT JOIN pg_stat_wal_receiver AS receiver ON receiver.status = 'streaming';
