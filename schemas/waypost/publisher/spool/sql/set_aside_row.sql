insert into damaged select * from commands where row = ?;
