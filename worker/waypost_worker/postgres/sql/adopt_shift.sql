-- By how much all positions must go down to lie before any new log: all become negative, and as far away from where
-- they were that no new one is equal to an old one while the rows are rewritten.
with bounds as (
    select min(position) as low, max(position) as high from waypost.checkpoints
    union all
    select min(position), max(position) from waypost.recent_commands
    union all
    select min("offset"), max("offset") from waypost.rejected_commands
)
select greatest(
    (select coalesce(max(next_offset), 0) from waypost.partitions),
    coalesce(max(high) + 1, 0),
    coalesce(max(high) - min(low) + 1, 0)
)
from bounds
