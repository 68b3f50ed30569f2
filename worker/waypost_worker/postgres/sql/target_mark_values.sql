-- $1 the schema's name, $2 its mark; for the next statement of this transaction, which takes no parameters
select set_config('replay.schema', $1, true), set_config('replay.mark', $2, true)
