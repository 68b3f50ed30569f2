-- The last run of 'waypost expire' for all sessions, or else the last one for some of them
select prefix, idle, now() - ended_at as ago, expired, removed
from waypost.expiry_runs
order by prefix <> '', ended_at desc
limit 1
