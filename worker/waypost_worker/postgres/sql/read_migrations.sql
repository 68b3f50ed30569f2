select number, name, sha256 from waypost.migrations order by number
