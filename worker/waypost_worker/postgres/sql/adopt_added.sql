-- A row for each partition of $1 that is new in this database, $2 of $3, with the policy that the others have: which is
-- the same in all of them.
insert into waypost.partitions (partition, partitions, default_policy, default_commands, authority)
select added, $1, p.default_policy, p.default_commands, p.authority
from generate_series(0, $1 - 1) added,
    (select * from waypost.partitions order by partition limit 1) p
where added % $3 = $2
on conflict do nothing
