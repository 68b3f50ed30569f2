-- When a session was erased: its row stays as a tombstone, which rejects later commands. Null for all others.
alter table waypost.sessions add column erased_at timestamptz;

create index sessions_erased on waypost.sessions (erased_at) where erased_at is not null;
