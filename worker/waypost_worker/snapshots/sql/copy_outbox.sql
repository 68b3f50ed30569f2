select partition, first_offset, last_offset, payload from waypost.outbox where partition = $1
