select partition, first_offset, last_offset, payload
from waypost.outbox
where partition = any ($1::integer[])
order by partition, first_offset
