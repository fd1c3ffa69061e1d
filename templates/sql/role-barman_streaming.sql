-- barman's pg_basebackup and pg_receivewal. Replication only.
ALTER ROLE barman_streaming NOSUPERUSER NOCREATEDB NOCREATEROLE REPLICATION NOBYPASSRLS;
