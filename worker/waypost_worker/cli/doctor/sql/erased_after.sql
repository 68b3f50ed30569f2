-- The next erased sessions after this time and id, by the index on that time; $3 at most so many
select session_id, erased_at
from waypost.sessions
where erased_at is not null and (erased_at, session_id) > ($1, $2)
order by erased_at, session_id
limit $3
