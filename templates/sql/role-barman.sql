-- barman's ordinary connection, to the database postgres.
ALTER ROLE barman LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION NOBYPASSRLS;
-- `barman check` and `barman backup` compare the server's settings and its replication slots.
GRANT pg_read_all_settings, pg_read_all_stats TO barman;
-- `backup --immediate-checkpoint` and `switch-wal --force`.
GRANT pg_checkpoint TO barman;
-- barman's manual, "PostgreSQL connection": what a user who is not superuser needs.
GRANT EXECUTE ON FUNCTION
    pg_catalog.pg_backup_start(text, boolean),
    pg_catalog.pg_backup_stop(boolean),
    pg_catalog.pg_switch_wal(),
    pg_catalog.pg_create_restore_point(text)
TO barman;
