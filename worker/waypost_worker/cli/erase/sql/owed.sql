-- $1 partition, $2 offset: entries of the outbox with results of commands up to there
select count(*) from waypost.outbox where partition = $1 and first_offset <= $2
