select count(*), coalesce(sum(length(value)), 0)
from commands;
