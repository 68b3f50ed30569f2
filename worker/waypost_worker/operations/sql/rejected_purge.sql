-- Some of what matches, so that no transaction gets long. Filters that are null don't count: $1 session id, $2 code,
-- $3 and $4 from and before (recorded_at), $5 and $6 places; $7 at most so many.
delete from waypost.rejected_commands
where ctid = any (array(
    select ctid
    from waypost.rejected_commands
    where ($1::text is null or session_id = $1)
      and ($2::text is null or code = $2)
      and ($3::timestamptz is null or recorded_at >= $3)
      and ($4::timestamptz is null or recorded_at < $4)
      and ($5::integer[] is null or (partition, "offset") in (select * from unnest($5::integer[], $6::bigint[])))
    limit $7
))
