-- $2 after this number; then optional: name, taken strictly after, from, to, metadata containment; limit
select * from waypost.checkpoints
where session_id = $1
  and number > $2
  and ($3::text is null or name = $3)
  and ($4::timestamptz is null or taken_at > $4)
  and ($5::timestamptz is null or taken_at >= $5)
  and ($6::timestamptz is null or taken_at <= $6)
  and ($7::jsonb is null or metadata @> $7)
order by number
limit $8
