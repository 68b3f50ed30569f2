delete from commands where row = ?;
