select row, id, type, session, at, traceparent, partition, value
from commands
order by row;
