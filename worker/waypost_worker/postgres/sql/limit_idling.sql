-- For this transaction: a worker that freezes in it loses its connection, and with it the row that it locked.
set local idle_in_transaction_session_timeout = '5s'
