-- While one of several databases is filled, the transactions on the others have nothing to do.
set local idle_in_transaction_session_timeout = 0
