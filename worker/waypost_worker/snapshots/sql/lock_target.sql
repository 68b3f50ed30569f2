-- A worker that starts meanwhile waits, and then finds what was restored.
lock table waypost.partitions in share row exclusive mode
