-- Who may configure the partition, as commands in its log say: the public key in base64, the ce_time of the last command that
-- was signed, in microseconds, and the offsets of skipped commands. Null until a command names an authority.
alter table waypost.partitions add column authority jsonb;

-- Not from the log, and of no meaning below next_offset: the command at which owners fail, and the one that an operator
-- asked to have skipped. That one must not be applied, whatever happens before the order is in the log.
alter table waypost.partitions add column blocked_offset bigint;
alter table waypost.partitions add column skip_offset bigint;
