-- A value that no command can have is not even read.
select row, id, type, session, at, traceparent, partition,
    case when length(value) <= ? then value end,
    coalesce(length(value), 0)
from commands
where row > ? and row <= ?
order by row;
