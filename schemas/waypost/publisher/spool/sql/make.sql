-- A spool file: the commands that a publisher accepted and Kafka has not acknowledged, in order of acceptance.
pragma user_version = 1;
create table about (
    topic  text not null,
    source blob not null
);
create table commands (
    row         integer primary key,
    id          text not null,
    type        text not null,
    session     text,
    at          blob not null,
    traceparent blob,
    partition   integer,
    value       blob not null
);
