insert into waypost.shard (shard, shards, set_id) values ($1, $2, $3) on conflict (only_row) do nothing
