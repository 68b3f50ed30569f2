update waypost.rejected_commands set "offset" = "offset" - $1
