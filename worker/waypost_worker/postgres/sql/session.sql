-- Once per connection. Statements are prepared once and their plans kept. A plan that was made while a table
-- was small would read all of it, and go on doing so while it grows by gigabytes until somebody analyses it.
-- So plans don't depend on what is in the tables: always the index, looked up once for each key.
set plan_cache_mode = force_generic_plan;
set enable_seqscan = off;
set enable_hashjoin = off;
set enable_mergejoin = off;
-- Compiling never pays for statements of milliseconds.
set jit = off;
