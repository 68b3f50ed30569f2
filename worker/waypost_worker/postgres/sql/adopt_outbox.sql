delete from waypost.outbox
