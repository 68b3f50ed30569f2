-- Checkpoints of a thread, newest first, with what they need: the records that hold their values, and their writes.
-- What is no checkpoint of the adapter, whoever named it so, is passed over.
-- $2 metadata that the checkpoints contain, $3 facts likewise or null, $4 facts that they contain or lack or null,
-- $5 before this number, $6 the most checkpoints
with chosen as (
    select number, metadata
    from waypost.checkpoints
    where session_id = $1
      and name = 'checkpoint'
      and number < $5
      and jsonb_typeof(metadata -> 'ns') = 'string'
      and jsonb_typeof(metadata -> 'id') = 'string'
      and jsonb_typeof(metadata -> 'needs') = 'array'
      and metadata @> $2::jsonb
      and ($3::jsonb is null or metadata @> $3::jsonb or metadata ? 'more')
      and (
        $4::jsonb is null
        or metadata -> 'facts' @> $4::jsonb
        or metadata -> 'facts' is null
        or not metadata -> 'facts' ?& array(select jsonb_object_keys($4::jsonb))
      )
    order by number desc
    limit $6
), needed as (
    select array_agg(distinct digest) as digests
    from chosen, jsonb_array_elements_text(metadata -> 'needs') as digest
)
select number, name, data, command_id, metadata, recorded_at, number in (select number from chosen) as chosen
from waypost.checkpoints
where session_id = $1
  and (
    number in (select number from chosen)
    or metadata -> 'holds' ?| (select digests from needed)
    or name = 'writes'
       and (metadata ->> 'ns', metadata ->> 'id') in (select metadata ->> 'ns', metadata ->> 'id' from chosen)
  )
order by number
