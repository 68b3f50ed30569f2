-- One pass over each partition's rows by its sessions, instead of one over all rows for each partition.
set local enable_hashjoin = off;
set local enable_mergejoin = off;
set local jit = off;
