-- Which rejected commands are kept: the offset from which they are counted, first offset and number of commands of each
-- part, oldest first, and the bytes of the newest part. Those that were stored before are not counted, and kept until
-- the first part is full and dropped with it.
alter table waypost.partitions
add column rejected_window jsonb not null default '{"since": 0, "parts": [[0, 0]], "newest_bytes": 0}';

update waypost.partitions
set rejected_window = jsonb_set(rejected_window, '{since}', to_jsonb(next_offset));
