-- The standbys' walreceivers and slots, and `standby clone`. Replication only.
ALTER ROLE repmgr_streaming LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE REPLICATION NOBYPASSRLS;
