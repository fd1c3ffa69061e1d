-- barman's pg_basebackup and pg_receivewal. Replication only.
ALTER ROLE barman_streaming LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE REPLICATION NOBYPASSRLS;
