-- $1 partition, $2 partition count, $3 the accepted records and $4 those of before, null if there was no row. The epoch
-- rises, so that an owner that read the results without them commits nothing more and reads them again.
insert into waypost.partitions as p (partition, partitions, epoch, foreign_results)
values ($1, $2, 1, $3)
on conflict (partition) do update
set foreign_results = excluded.foreign_results, epoch = p.epoch + 1
where p.foreign_results = $4
returning epoch
