select shard, shards, set_id from waypost.shard
