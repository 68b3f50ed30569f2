insert into about (topic, source) values (?, ?);
