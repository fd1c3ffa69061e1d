-- The standbys' walreceivers and slots, and `standby clone`. Replication only.
ALTER ROLE repmgr_streaming NOSUPERUSER NOCREATEDB NOCREATEROLE REPLICATION NOBYPASSRLS;
