update waypost.checkpoints set position = position - $1
