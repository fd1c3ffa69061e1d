-- repmgr and repmgrd, over ordinary connections to the database repmgr. Not a superuser: whoever
-- learns this password can look at the cluster and promote, not read or change its data.
ALTER ROLE repmgr LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION NOBYPASSRLS;
-- `node check` and `node status` read data_directory, the paths of the configuration files,
-- pg_stat_replication and pg_stat_wal_receiver.
GRANT pg_monitor TO repmgr;
-- `node service --checkpoint` before a handover.
GRANT pg_checkpoint TO repmgr;
