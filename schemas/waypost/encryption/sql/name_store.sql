-- $1 the format of the tables, $2 a random id
insert into waypost_keys.store (version, deployment) values ($1, $2) on conflict do nothing returning true
