select * from waypost.sessions where partition = $1
