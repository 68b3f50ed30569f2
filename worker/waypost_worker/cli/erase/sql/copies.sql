-- Other sessions that hold checkpoints which were imported from session $1, as copies and forks do; $2 at most so many.
-- The index of imported ids is looked through.
select session_id, count(*) as checkpoints
from waypost.checkpoints
where imported_id is not null
  and starts_with(imported_id, $1 || ':')
  and session_id <> $1
group by session_id
order by session_id
limit $2
