select row, id, type, session, at, traceparent, partition, value
from commands
where row > ? and row <= ?
order by row;
