-- What a node's server is doing, in one look. Run as repmgr, in the database repmgr.
SELECT
    in_recovery,
    -- A primary's WAL file is named after the timeline that it writes.
    CASE WHEN NOT in_recovery THEN left(pg_walfile_name(pg_current_wal_lsn()), 8) END AS writes,
    -- What a standby has received on, checkpointed on or replayed to, whichever is newest.
    greatest(
        (SELECT received_tli FROM pg_stat_wal_receiver),
        (SELECT timeline_id FROM pg_control_checkpoint()),
        (SELECT min_recovery_end_timeline FROM pg_control_recovery())
    ) AS replays,
    CASE WHEN in_recovery THEN pg_last_wal_replay_lsn() ELSE pg_current_wal_lsn() END::text AS lsn,
    (SELECT system_identifier FROM pg_control_system()) AS system,
    current_setting('cluster_name') AS name
FROM pg_is_in_recovery() AS in_recovery;
