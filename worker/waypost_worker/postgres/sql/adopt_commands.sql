update waypost.recent_commands set position = position - $1
