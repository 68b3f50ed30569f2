-- The records that hold values of the digests $2, and the writes to the checkpoint $4 of namespace $3.
select number, name, data, command_id, metadata, recorded_at, false as chosen
from waypost.checkpoints
where session_id = $1
  and (
    metadata -> 'holds' ?| $2::text[]
    or name = 'writes' and metadata ->> 'ns' = $3 and metadata ->> 'id' = $4
  )
order by number
