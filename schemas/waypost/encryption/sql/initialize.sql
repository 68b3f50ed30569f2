-- Run in one transaction, behind an advisory lock: "if not exists" alone fails if two run it at once.
create schema if not exists waypost_keys;

create table if not exists waypost_keys.store (
    only_row boolean primary key default true check (only_row),
    version integer not null,
    deployment text not null,
    created_at timestamptz not null default now()
);

-- A row is a session's wrapped key, or the tombstone of one that was deleted.
create table if not exists waypost_keys.session_keys (
    session_id text collate "C" primary key,
    key_id text not null,
    wrapping_key text not null,
    wrapped bytea not null,
    created_at timestamptz not null,
    erased_at timestamptz,
    check ((erased_at is null) = (octet_length(wrapped) > 0))
);
