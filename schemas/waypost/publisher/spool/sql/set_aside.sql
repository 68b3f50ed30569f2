-- Rows that are no commands, whole and out of the way.
create table if not exists damaged as select * from commands where false;
