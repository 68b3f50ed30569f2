-- Write-ahead, synced to the disk at checkpoints only: each commit survives the death of the process, and the
-- file stays whole when power fails. Checkpoints are made by the spool's own thread, never within a call.
pragma journal_mode = wal;
pragma synchronous = normal;
pragma wal_autocheckpoint = 0;
pragma journal_size_limit = 33554432;
