update waypost.partitions
set next_offset = 0, anchor = null, emitted = -1, results_offset = 0, producer_id = null, producer_epoch = null,
    former_producer_ids = null,
    rejected_window = default,
    foreign_results = default,
    authority = authority - 'skipped', blocked_offset = null, skip_offset = null
