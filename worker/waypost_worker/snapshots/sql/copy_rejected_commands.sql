select * from waypost.rejected_commands where partition = $1
