insert into commands (row, id, type, session, at, traceparent, partition, value) values (?, ?, ?, ?, ?, ?, ?, ?);
