-- Run in the database repmgr, by the superuser: repmgr itself then needs to be none.
REVOKE CONNECT, TEMPORARY ON DATABASE repmgr FROM PUBLIC;
GRANT CONNECT ON DATABASE repmgr TO repmgr, repmgr_streaming;

CREATE EXTENSION IF NOT EXISTS repmgr;
-- After an upgrade of the image: the library is new, the extension's objects must follow.
ALTER EXTENSION repmgr UPDATE;

-- Grants, not ownership: what the extension's next version adds stays the superuser's to give.
GRANT USAGE ON SCHEMA repmgr TO repmgr;
GRANT SELECT, INSERT, UPDATE, DELETE, TRUNCATE ON ALL TABLES IN SCHEMA repmgr TO repmgr;
-- `standby promote`.
GRANT EXECUTE ON FUNCTION
    pg_catalog.pg_promote(boolean, integer),
    pg_catalog.pg_wal_replay_resume()
TO repmgr;
-- pg_rewind's source connection ("Notes" in its manual). This role may take a base backup
-- anyway: reading single files gives it nothing new.
GRANT EXECUTE ON FUNCTION
    pg_catalog.pg_ls_dir(text, boolean, boolean),
    pg_catalog.pg_stat_file(text, boolean),
    pg_catalog.pg_read_binary_file(text),
    pg_catalog.pg_read_binary_file(text, bigint, bigint, boolean)
TO repmgr_streaming;
