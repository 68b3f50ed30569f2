select first_offset, last_offset, payload from waypost.outbox where partition = $1 order by first_offset
