select * from waypost.outbox where partition = $1
