-- Records of the results topic that no owner wrote and an operator accepted: offset and digest of each. Whoever reads the
-- partition's results passes over exactly these.
alter table waypost.partitions add column foreign_results jsonb not null default '[]';

-- Ids that owners before the present producer_id had, as far as their results may lie behind results_offset; null if that
-- is not known.
alter table waypost.partitions add column former_producer_ids jsonb;
