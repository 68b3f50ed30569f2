-- Erased sessions in this database, and how many of them hold something again, as no worker of today lets them
select
    count(*) as sessions,
    count(*) filter (
        where s.checkpoints > 0
            or s.policy is not null
            or exists (select from waypost.checkpoints c where c.session_id = s.session_id)
    ) as holding
from waypost.sessions s
where s.erased_at is not null
