-- Whether the schema at hand, which may be of an earlier version, holds anything of session $1 that counts
select
    exists (select from waypost.checkpoints where session_id = $1)
    or exists (
        select from waypost.rejected_commands where session_id = $1 and octet_length(value) > 0
    )
