update waypost.partitions set default_policy = $2, default_commands = $3 where partition = $1
