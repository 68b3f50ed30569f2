-- Of a rejected command at most 1 MiB of the value and 64 KiB of headers are kept: then these are the sizes of the whole.
alter table waypost.rejected_commands add column value_bytes bigint;
alter table waypost.rejected_commands add column headers_bytes bigint;
