SET statement_timeout = 0;
SET lock_timeout = 0;
SET idle_in_transaction_session_timeout = 0;
SET transaction_timeout = 0;
SET client_encoding = 'UTF8';
SET standard_conforming_strings = on;
SELECT pg_catalog.set_config('search_path', '', false);
SET check_function_bodies = false;
SET xmloption = content;
SET client_min_messages = warning;
SET row_security = off;
CREATE SCHEMA waypost;
CREATE FUNCTION waypost.data_as_json(data bytea) RETURNS jsonb
    LANGUAGE plpgsql IMMUTABLE STRICT PARALLEL SAFE
    AS $$
begin
    return convert_from(data, 'UTF8')::jsonb;
exception
    when others then
        return to_jsonb(convert_from(data, 'UTF8'));
end
$$;
CREATE FUNCTION waypost.reader_tenant() RETURNS text
    LANGUAGE plpgsql STABLE PARALLEL SAFE
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
declare
    bound  record;
    wanted text := nullif(current_setting('waypost_reader.tenant', true), '');
begin
    select r.role_name, r.tenant into bound
    from waypost.tenant_roles r
    where r.role_name in (session_user, current_user)
    order by r.role_name = session_user desc
    limit 1;
    if not found then
        raise insufficient_privilege using
            message = format('the role %I reads for one tenant, and it is not listed in tenant_roles', session_user),
            hint = 'An administrator adds it there; see docs/tenants.md.';
    elsif bound.tenant is null and wanted is null then
        raise insufficient_privilege using
            message = format('the role %I reads for one tenant, and this transaction names none', bound.role_name),
            hint = 'Pass the reader a tenant: Reader(dsn, tenant=…).';
    elsif bound.tenant <> wanted then
        raise insufficient_privilege using
            message = format('the role %I reads for the tenant %L, not for %L', bound.role_name, bound.tenant, wanted),
            hint = 'Pass the reader that tenant, or none.';
    end if;
    return coalesce(bound.tenant, wanted);
end
$$;
SET default_tablespace = '';
SET default_table_access_method = heap;
CREATE TABLE waypost.checkpoints (
    session_id text NOT NULL COLLATE pg_catalog."C",
    number bigint NOT NULL,
    imported_id text,
    name text NOT NULL,
    taken_at timestamp with time zone NOT NULL,
    recorded_at timestamp with time zone NOT NULL,
    data bytea NOT NULL,
    metadata jsonb NOT NULL,
    pinned boolean NOT NULL,
    command_id text,
    "position" bigint NOT NULL
)
WITH (autovacuum_vacuum_scale_factor='0.02', autovacuum_vacuum_insert_scale_factor='0.1', autovacuum_vacuum_cost_limit='2000');
CREATE VIEW waypost.checkpoint_json WITH (security_invoker='true') AS
 SELECT ((session_id || ':'::text) || number) AS id,
    session_id,
    number,
    name,
    taken_at AS "timestamp",
    recorded_at,
    waypost.data_as_json(data) AS data,
    metadata,
    pinned,
    imported_id
   FROM waypost.checkpoints;
CREATE TABLE waypost.expiry_runs (
    prefix text NOT NULL COLLATE pg_catalog."C",
    idle interval NOT NULL,
    ended_at timestamp with time zone NOT NULL,
    expired bigint NOT NULL,
    removed bigint NOT NULL
);
CREATE TABLE waypost.migrations (
    number integer NOT NULL,
    name text NOT NULL,
    sha256 text NOT NULL,
    applied_at timestamp with time zone DEFAULT now() NOT NULL
);
CREATE TABLE waypost.outbox (
    partition integer NOT NULL,
    first_offset bigint NOT NULL,
    last_offset bigint NOT NULL,
    payload bytea NOT NULL
)
WITH (autovacuum_vacuum_threshold='500', autovacuum_vacuum_scale_factor='0');
ALTER TABLE ONLY waypost.outbox ALTER COLUMN payload SET STORAGE EXTERNAL;
CREATE TABLE waypost.partitions (
    partition integer NOT NULL,
    partitions integer NOT NULL,
    next_offset bigint DEFAULT 0 NOT NULL,
    epoch bigint DEFAULT 0 NOT NULL,
    emitted bigint DEFAULT '-1'::integer NOT NULL,
    results_offset bigint DEFAULT 0 NOT NULL,
    anchor bytea,
    producer_id bigint,
    producer_epoch integer,
    default_policy jsonb,
    default_commands jsonb DEFAULT '[]'::jsonb NOT NULL,
    rejected_window jsonb DEFAULT '{"parts": [[0, 0]], "since": 0, "newest_bytes": 0}'::jsonb NOT NULL,
    foreign_results jsonb DEFAULT '[]'::jsonb NOT NULL,
    former_producer_ids jsonb,
    authority jsonb,
    blocked_offset bigint,
    skip_offset bigint
)
WITH (fillfactor='50', autovacuum_vacuum_threshold='500', autovacuum_vacuum_scale_factor='0');
CREATE TABLE waypost.recent_commands (
    session_id text NOT NULL COLLATE pg_catalog."C",
    "position" bigint NOT NULL,
    command_id text NOT NULL,
    number bigint
)
WITH (autovacuum_vacuum_scale_factor='0.02');
CREATE TABLE waypost.rejected_commands (
    partition integer NOT NULL,
    "offset" bigint NOT NULL,
    session_id text,
    command_id text,
    code text NOT NULL,
    message text NOT NULL,
    key bytea,
    value bytea,
    headers bytea NOT NULL,
    recorded_at timestamp with time zone NOT NULL,
    value_bytes bigint,
    headers_bytes bigint
);
CREATE TABLE waypost.sessions (
    session_id text NOT NULL COLLATE pg_catalog."C",
    partition integer NOT NULL,
    counter bigint NOT NULL,
    policy jsonb,
    checkpoints integer NOT NULL,
    first_recorded_at timestamp with time zone NOT NULL,
    last_recorded_at timestamp with time zone NOT NULL,
    active_minute timestamp with time zone GENERATED ALWAYS AS (date_bin('00:01:00'::interval, last_recorded_at, '1970-01-01 00:00:00+00'::timestamp with time zone)) STORED NOT NULL,
    erased_at timestamp with time zone
)
WITH (fillfactor='70');
CREATE TABLE waypost.shard (
    only_row boolean DEFAULT true NOT NULL,
    shard integer NOT NULL,
    shards integer NOT NULL,
    set_id uuid NOT NULL,
    recorded_at timestamp with time zone DEFAULT now() NOT NULL,
    CONSTRAINT shard_check CHECK (((shard >= 0) AND (shard < shards))),
    CONSTRAINT shard_only_row_check CHECK (only_row),
    CONSTRAINT shard_shards_check CHECK ((shards > 1))
);
CREATE TABLE waypost.tenant_roles (
    role_name name NOT NULL,
    tenant text COLLATE pg_catalog."C",
    CONSTRAINT tenant_roles_tenant_check CHECK (((tenant <> ''::text) AND (strpos(tenant, '/'::text) = 0) AND (length(tenant) < 200)))
);
INSERT INTO waypost.checkpoints VALUES ('run-1-6', 1, NULL, 'done', '2026-11-24 08:24:59.123456+00', '2026-11-30 15:29:39.817+00', '\x7b2273746570223a312c2274657874223a22227d', '{}', false, '1-2', 0);
INSERT INTO waypost.checkpoints VALUES ('run-1-11', 1, NULL, 'done', '2026-11-24 08:24:59.123456+00', '2026-11-30 15:29:39.817+00', '\x7b2273746570223a312c2274657874223a2278787878787878787878787878227d', '{}', false, '1-7', 2);
INSERT INTO waypost.checkpoints VALUES ('run-1-11', 2, NULL, 'tool_called', '2026-11-24 08:24:59.123456+00', '2026-11-30 15:29:39.817+00', '\x7b2273746570223a322c2274657874223a227878787878227d', '{}', false, '1-9', 3);
INSERT INTO waypost.checkpoints VALUES ('run-1-6', 2, NULL, 'started', '2026-11-24 08:24:59.123456+00', '2026-11-30 15:29:39.817+00', '\x7b2273746570223a322c2274657874223a2278787878787878787878787878787878227d', '{}', false, '1-12', 4);
INSERT INTO waypost.checkpoints VALUES ('run-1-6', 3, NULL, 'tool_called', '2026-11-24 08:24:59.123456+00', '2026-11-30 15:29:39.817+00', '\x7b2273746570223a332c2274657874223a227878787878227d', '{"n": 0.035326046636964814}', false, '1-23', 9);
INSERT INTO waypost.checkpoints VALUES ('run-1-10', 1, NULL, 'imported', '2026-11-24 08:00:00+00', '2026-11-30 15:29:39.817+00', '\x7b226f66223a2272756e2d312d31303a31222c226e223a302e3934303733343532323234397d', '{}', false, NULL, 17);
INSERT INTO waypost.checkpoints VALUES ('run-1-10', 2, 'other:3', 'imported', '2026-11-24 08:00:00+00', '2026-11-30 15:29:39.817+00', '\x7b226f66223a226f746865723a33222c226e223a302e3934303733343532323234397d', '{}', false, NULL, 17);
INSERT INTO waypost.checkpoints VALUES ('run-1-11', 3, NULL, 'done', '2026-11-24 08:24:59.123456+00', '2026-11-30 15:29:39.817+00', '\x7b2273746570223a332c2274657874223a227878787878787878787878787878787878787878787878787878227d', '{}', false, '1-53', 19);
INSERT INTO waypost.checkpoints VALUES ('run-1-11', 4, NULL, 'tool_called', '2026-11-24 08:24:59.123456+00', '2026-11-30 15:29:39.817+00', '\x7b2273746570223a342c2274657874223a22787878787878787878227d', '{}', false, '1-54', 20);
INSERT INTO waypost.checkpoints VALUES ('run-1-11', 5, NULL, 'started', '2026-11-24 08:24:59.123456+00', '2026-11-30 15:29:39.817+00', '\x7b2273746570223a352c2274657874223a2278787878787878787878787878787878227d', '{}', false, '1-66', 27);
INSERT INTO waypost.checkpoints VALUES ('run-1-10', 3, NULL, 'done', '2026-11-24 08:24:59.123456+00', '2026-11-30 15:29:39.817+00', '\x7b2273746570223a312c2274657874223a227878787878787878787878227d', '{"n": 0.07518357411303722}', false, '1-76', 32);
INSERT INTO waypost.checkpoints VALUES ('run-1-11', 6, NULL, 'done', '2026-11-24 08:24:59.123456+00', '2026-11-30 15:29:39.817+00', '\x7b2273746570223a362c2274657874223a22787878227d', '{}', false, '1-78', 33);
INSERT INTO waypost.checkpoints VALUES ('run-1-11', 7, NULL, 'done', '2026-11-24 08:24:59.123456+00', '2026-11-30 15:29:39.817+00', '\x7b2273746570223a372c2274657874223a22787878787878787878787878787878787878787878227d', '{}', false, '1-81', 35);
INSERT INTO waypost.checkpoints VALUES ('run-1-11', 8, NULL, 'started', '2026-11-24 08:24:59.123456+00', '2026-11-30 15:29:39.817+00', '\x7b2273746570223a382c2274657874223a227878787878787878787878787878787878787878787878227d', '{}', false, '1-83', 36);
INSERT INTO waypost.checkpoints VALUES ('run-1-11', 9, NULL, 'started', '2026-11-24 08:24:59.123456+00', '2026-11-30 15:29:39.817+00', '\x7b2273746570223a392c2274657874223a22787878787878787878787878227d', '{}', false, '1-91', 39);
INSERT INTO waypost.checkpoints VALUES ('run-1-11', 10, NULL, 'done', '2026-11-24 08:24:59.123456+00', '2026-11-30 15:29:39.817+00', '\x7b2273746570223a31302c2274657874223a2278787878787878787878787878787878787878227d', '{}', false, '1-92', 40);
INSERT INTO waypost.checkpoints VALUES ('run-1-11', 11, NULL, 'started', '2026-11-24 08:24:59.123456+00', '2026-11-30 15:29:39.817+00', '\x7b2273746570223a31312c2274657874223a227878787878787878787878787878787878787878787878227d', '{}', false, '1-110', 44);
INSERT INTO waypost.checkpoints VALUES ('run-1-11', 12, NULL, 'tool_called', '2026-11-24 08:24:59.123456+00', '2026-11-30 15:29:39.817+00', '\x7b2273746570223a31322c2274657874223a2278787878787878787878787878787878787878787878787878787878227d', '{}', false, '1-118', 49);
INSERT INTO waypost.checkpoints VALUES ('run-1-11', 13, NULL, 'done', '2026-11-24 08:24:59.123456+00', '2026-11-30 15:29:39.817+00', '\x7b2273746570223a31332c2274657874223a227878787878787878787878227d', '{}', false, '1-124', 51);
INSERT INTO waypost.checkpoints VALUES ('run-1-10', 4, NULL, 'started', '2026-11-24 08:24:59.123456+00', '2026-11-30 15:29:39.846+00', '\x7b2273746570223a322c2274657874223a22227d', '{}', false, '1-145', 58);
INSERT INTO waypost.checkpoints VALUES ('run-1-6', 9, NULL, 'done', '2026-11-24 08:24:59.123456+00', '2026-11-30 15:29:39.846+00', '\x7b2273746570223a392c2274657874223a227878787878787878227d', '{}', false, '1-147', 60);
INSERT INTO waypost.checkpoints VALUES ('run-1-11', 14, NULL, 'tool_called', '2026-11-24 08:24:59.123456+00', '2026-11-30 15:29:39.846+00', '\x7b2273746570223a31342c2274657874223a22787878787878227d', '{}', false, '1-156', 64);
INSERT INTO waypost.checkpoints VALUES ('run-1-6', 10, NULL, 'done', '2026-11-24 08:24:59.123456+00', '2026-11-30 15:29:39.846+00', '\x7b2273746570223a31302c2274657874223a227878787878787878227d', '{}', false, '1-170', 69);
INSERT INTO waypost.checkpoints VALUES ('run-1-6', 11, NULL, 'started', '2026-11-24 08:24:59.123456+00', '2026-11-30 15:29:39.846+00', '\x7b2273746570223a31312c2274657874223a227878787878787878787878227d', '{}', false, '1-171', 70);
INSERT INTO waypost.checkpoints VALUES ('run-1-11', 15, NULL, 'done', '2026-11-24 08:24:59.123456+00', '2026-11-30 15:29:39.846+00', '\x7b2273746570223a31352c2274657874223a22227d', '{}', false, '1-172', 71);
INSERT INTO waypost.checkpoints VALUES ('run-1-10', 7, NULL, 'tool_called', '2026-11-24 08:24:59.123456+00', '2026-11-30 15:29:39.846+00', '\x7b2273746570223a352c2274657874223a227878787878787878787878227d', '{}', false, '1-187', 77);
INSERT INTO waypost.checkpoints VALUES ('run-1-6', 12, NULL, 'done', '2026-11-24 08:24:59.123456+00', '2026-11-30 15:29:39.846+00', '\x7b2273746570223a31322c2274657874223a22787878227d', '{}', false, '1-188', 78);
INSERT INTO waypost.checkpoints VALUES ('run-1-6', 13, NULL, 'tool_called', '2026-11-24 08:24:59.123456+00', '2026-11-30 15:29:39.846+00', '\x7b2273746570223a31332c2274657874223a227878787878787878787878787878787878787878787878787878227d', '{}', false, '1-190', 79);
INSERT INTO waypost.checkpoints VALUES ('run-1-10', 8, NULL, 'started', '2026-11-24 08:24:59.123456+00', '2026-11-30 15:29:39.846+00', '\x7b2273746570223a362c2274657874223a2278787878787878227d', '{}', false, '1-193', 81);
INSERT INTO waypost.checkpoints VALUES ('run-1-11', 16, NULL, 'done', '2026-11-24 08:24:59.123456+00', '2026-11-30 15:29:39.846+00', '\x7b2273746570223a31362c2274657874223a2278787878787878787878787878787878787878787878227d', '{}', false, '1-195', 82);
INSERT INTO waypost.checkpoints VALUES ('run-1-6', 14, NULL, 'done', '2026-11-24 08:24:59.123456+00', '2026-11-30 15:29:39.846+00', '\x7b2273746570223a31342c2274657874223a227878787878787878787878787878787878227d', '{}', false, '1-198', 83);
INSERT INTO waypost.checkpoints VALUES ('run-1-7', 1, NULL, 'started', '2026-11-24 08:24:59.123456+00', '2026-11-30 15:29:39.813+00', '\x7b2273746570223a312c2274657874223a2278787878787878787878787878787878787878787878787878227d', '{}', false, '1-1', 1);
INSERT INTO waypost.checkpoints VALUES ('run-1-5', 1, NULL, 'tool_called', '2026-11-24 08:24:59.123456+00', '2026-11-30 15:29:39.813+00', '\x7b2273746570223a312c2274657874223a22787878787878787878787878787878787878787878787878227d', '{}', false, '1-5', 3);
INSERT INTO waypost.checkpoints VALUES ('run-1-8', 1, NULL, 'done', '2026-11-24 08:24:59.123456+00', '2026-11-30 15:29:39.813+00', '\x7b2273746570223a312c2274657874223a227878787878787878787878787878787878787878227d', '{}', false, '1-6', 4);
INSERT INTO waypost.checkpoints VALUES ('run-1-7', 2, NULL, 'tool_called', '2026-11-24 08:24:59.123456+00', '2026-11-30 15:29:39.813+00', '\x7b2273746570223a322c2274657874223a2278227d', '{"n": 0.029574963966907064}', true, '1-11', 7);
INSERT INTO waypost.checkpoints VALUES ('run-1-8', 2, NULL, 'done', '2026-11-24 08:24:59.123456+00', '2026-11-30 15:29:39.813+00', '\x7b2273746570223a322c2274657874223a227878787878787878787878227d', '{}', false, '1-13', 8);
INSERT INTO waypost.checkpoints VALUES ('run-1-9', 1, NULL, 'done', '2026-11-24 08:24:59.123456+00', '2026-11-30 15:29:39.813+00', '\x7b2273746570223a312c2274657874223a2278787878787878787878787878787878787878787878787878227d', '{"n": 0.005709129450392925}', false, '1-14', 9);
INSERT INTO waypost.checkpoints VALUES ('run-1-7', 3, NULL, 'done', '2026-11-24 08:24:59.123456+00', '2026-11-30 15:29:39.813+00', '\x7b2273746570223a332c2274657874223a22227d', '{}', false, '1-16', 10);
INSERT INTO waypost.checkpoints VALUES ('run-1-8', 3, NULL, 'started', '2026-11-24 08:24:59.123456+00', '2026-11-30 15:29:39.813+00', '\x7b2273746570223a332c2274657874223a22787878787878787878787878787878787878787878227d', '{"n": 0.03245913119424004}', false, '1-18', 12);
INSERT INTO waypost.checkpoints VALUES ('run-1-7', 4, NULL, 'tool_called', '2026-11-24 08:24:59.123456+00', '2026-11-30 15:29:39.813+00', '\x7b2273746570223a342c2274657874223a22787878787878787878787878227d', '{"n": 0.023634577631987064}', true, '1-21', 13);
INSERT INTO waypost.checkpoints VALUES ('run-1-9', 2, NULL, 'started', '2026-11-24 08:24:59.123456+00', '2026-11-30 15:29:39.813+00', '\x7b2273746570223a322c2274657874223a2278787878787878787878787878227d', '{}', false, '1-25', 14);
INSERT INTO waypost.checkpoints VALUES ('run-1-9', 3, NULL, 'started', '2026-11-24 08:24:59.123456+00', '2026-11-30 15:29:39.813+00', '\x7b2273746570223a332c2274657874223a227878787878787878787878787878787878227d', '{}', false, '1-27', 15);
INSERT INTO waypost.checkpoints VALUES ('run-1-7', 5, NULL, 'started', '2026-11-24 08:24:59.123456+00', '2026-11-30 15:29:39.813+00', '\x7b2273746570223a352c2274657874223a227878787878787878787878787878787878787878787878227d', '{}', false, '1-33', 19);
INSERT INTO waypost.checkpoints VALUES ('run-1-2', 1, NULL, 'tool_called', '2026-11-24 08:24:59.123456+00', '2026-11-30 15:29:39.813+00', '\x7b2273746570223a312c2274657874223a22787878227d', '{}', true, '1-36', 20);
INSERT INTO waypost.checkpoints VALUES ('run-1-2', 2, NULL, 'done', '2026-11-24 08:24:59.123456+00', '2026-11-30 15:29:39.813+00', '\x7b2273746570223a322c2274657874223a2278787878787878787878787878787878787878227d', '{}', false, '1-37', 21);
INSERT INTO waypost.checkpoints VALUES ('run-1-8', 4, NULL, 'tool_called', '2026-11-24 08:24:59.123456+00', '2026-11-30 15:29:39.813+00', '\x7b2273746570223a342c2274657874223a227878787878787878787878227d', '{}', false, '1-45', 25);
INSERT INTO waypost.checkpoints VALUES ('run-1-9', 4, NULL, 'done', '2026-11-24 08:24:59.123456+00', '2026-11-30 15:29:39.813+00', '\x7b2273746570223a342c2274657874223a22787878227d', '{}', false, '1-48', 27);
INSERT INTO waypost.checkpoints VALUES ('run-1-8', 5, NULL, 'started', '2026-11-24 08:24:59.123456+00', '2026-11-30 15:29:39.813+00', '\x7b2273746570223a352c2274657874223a22787878787878787878787878787878787878787878227d', '{"n": 0.0771069862639161}', false, '1-51', 29);
INSERT INTO waypost.checkpoints VALUES ('run-1-9', 5, NULL, 'tool_called', '2026-11-24 08:24:59.123456+00', '2026-11-30 15:29:39.813+00', '\x7b2273746570223a352c2274657874223a227878227d', '{}', false, '1-68', 37);
INSERT INTO waypost.checkpoints VALUES ('run-1-8', 6, NULL, 'imported', '2026-11-24 08:00:00+00', '2026-11-30 15:29:39.813+00', '\x7b226f66223a2272756e2d312d383a36222c226e223a302e3935393830343132363534343538357d', '{}', false, '1-56', 31);
INSERT INTO waypost.checkpoints VALUES ('run-1-8', 7, 'other:4', 'imported', '2026-11-24 08:00:00+00', '2026-11-30 15:29:39.813+00', '\x7b226f66223a226f746865723a34222c226e223a302e3935393830343132363534343538357d', '{}', false, NULL, 39);
INSERT INTO waypost.checkpoints VALUES ('run-1-8', 8, NULL, 'done', '2026-11-24 08:24:59.123456+00', '2026-11-30 15:29:39.813+00', '\x7b2273746570223a372c2274657874223a227878787878787878787878787878227d', '{"n": 0.0008447179488895173}', false, '1-77', 40);
INSERT INTO waypost.checkpoints VALUES ('run-1-9', 6, NULL, 'done', '2026-11-24 08:24:59.123456+00', '2026-11-30 15:29:39.813+00', '\x7b2273746570223a362c2274657874223a227878787878787878227d', '{}', false, '1-85', 43);
INSERT INTO waypost.checkpoints VALUES ('run-1-7', 7, NULL, 'done', '2026-11-24 08:24:59.123456+00', '2026-11-30 15:29:39.813+00', '\x7b2273746570223a372c2274657874223a227878787878787878787878787878227d', '{}', false, '1-86', 44);
INSERT INTO waypost.checkpoints VALUES ('run-1-9', 7, NULL, 'started', '2026-11-24 08:24:59.123456+00', '2026-11-30 15:29:39.813+00', '\x7b2273746570223a372c2274657874223a2278787878787878787878787878227d', '{}', false, '1-93', 47);
INSERT INTO waypost.checkpoints VALUES ('run-1-2', 3, NULL, 'done', '2026-11-24 08:24:59.123456+00', '2026-11-30 15:29:39.813+00', '\x7b2273746570223a332c2274657874223a227878787878787878787878787878787878787878787878787878787878227d', '{}', false, '1-94', 48);
INSERT INTO waypost.checkpoints VALUES ('run-1-2', 4, NULL, 'done', '2026-11-24 08:24:59.123456+00', '2026-11-30 15:29:39.813+00', '\x7b2273746570223a342c2274657874223a2278787878787878787878787878787878787878787878787878787878227d', '{}', false, '1-95', 49);
INSERT INTO waypost.checkpoints VALUES ('run-1-7', 8, NULL, 'done', '2026-11-24 08:24:59.123456+00', '2026-11-30 15:29:39.813+00', '\x7b2273746570223a382c2274657874223a227878787878787878787878787878787878787878787878227d', '{}', false, '1-98', 52);
INSERT INTO waypost.checkpoints VALUES ('run-1-9', 8, NULL, 'tool_called', '2026-11-24 08:24:59.123456+00', '2026-11-30 15:29:39.813+00', '\x7b2273746570223a382c2274657874223a2278787878787878227d', '{}', false, '1-99', 53);
INSERT INTO waypost.checkpoints VALUES ('run-1-2', 5, NULL, 'started', '2026-11-24 08:24:59.123456+00', '2026-11-30 15:29:39.813+00', '\x7b2273746570223a352c2274657874223a227878787878787878787878787878787878787878787878787878787878227d', '{}', false, '1-61', 55);
INSERT INTO waypost.checkpoints VALUES ('run-1-9', 9, NULL, 'tool_called', '2026-11-24 08:24:59.123456+00', '2026-11-30 15:29:39.813+00', '\x7b2273746570223a392c2274657874223a227878227d', '{}', false, '1-104', 56);
INSERT INTO waypost.checkpoints VALUES ('run-1-8', 9, NULL, 'started', '2026-11-24 08:24:59.123456+00', '2026-11-30 15:29:39.813+00', '\x7b2273746570223a382c2274657874223a2278787878227d', '{}', false, '1-105', 57);
INSERT INTO waypost.checkpoints VALUES ('run-1-7', 9, NULL, 'tool_called', '2026-11-24 08:24:59.123456+00', '2026-11-30 15:29:39.813+00', '\x7b2273746570223a392c2274657874223a227878787878787878227d', '{}', false, '1-107', 58);
INSERT INTO waypost.checkpoints VALUES ('run-1-9', 10, NULL, 'done', '2026-11-24 08:24:59.123456+00', '2026-11-30 15:29:39.813+00', '\x7b2273746570223a31302c2274657874223a2278787878787878787878787878787878787878227d', '{}', false, '1-108', 59);
INSERT INTO waypost.checkpoints VALUES ('run-1-8', 10, NULL, 'started', '2026-11-24 08:24:59.123456+00', '2026-11-30 15:29:39.813+00', '\x7b2273746570223a392c2274657874223a2278787878787878787878227d', '{"n": 0.09928212303435402}', false, '1-112', 61);
INSERT INTO waypost.checkpoints VALUES ('run-1-8', 11, NULL, 'done', '2026-11-24 08:24:59.123456+00', '2026-11-30 15:29:39.813+00', '\x7b2273746570223a31302c2274657874223a2278787878787878787878227d', '{}', false, '1-116', 62);
INSERT INTO waypost.checkpoints VALUES ('run-1-8', 12, NULL, 'tool_called', '2026-11-24 08:24:59.123456+00', '2026-11-30 15:29:39.813+00', '\x7b2273746570223a31312c2274657874223a2278787878787878787878227d', '{}', false, '1-120', 65);
INSERT INTO waypost.checkpoints VALUES ('run-1-9', 11, NULL, 'tool_called', '2026-11-24 08:24:59.123456+00', '2026-11-30 15:29:39.813+00', '\x7b2273746570223a31312c2274657874223a2278787878787878787878787878787878227d', '{}', false, '1-123', 66);
INSERT INTO waypost.checkpoints VALUES ('run-1-7', 10, NULL, 'done', '2026-11-24 08:24:59.123456+00', '2026-11-30 15:29:39.835+00', '\x7b2273746570223a31302c2274657874223a22787878787878787878227d', '{}', false, '1-133', 73);
INSERT INTO waypost.checkpoints VALUES ('run-1-9', 12, NULL, 'done', '2026-11-24 08:24:59.123456+00', '2026-11-30 15:29:39.835+00', '\x7b2273746570223a31322c2274657874223a2278787878787878787878787878227d', '{}', false, '1-135', 74);
INSERT INTO waypost.checkpoints VALUES ('run-1-9', 13, NULL, 'tool_called', '2026-11-24 08:24:59.123456+00', '2026-11-30 15:29:39.835+00', '\x7b2273746570223a31332c2274657874223a227878787878787878787878787878227d', '{}', false, '1-136', 75);
INSERT INTO waypost.checkpoints VALUES ('run-1-2', 6, NULL, 'done', '2026-11-24 08:24:59.123456+00', '2026-11-30 15:29:39.835+00', '\x7b2273746570223a362c2274657874223a2278787878787878787878787878227d', '{}', false, '1-137', 76);
INSERT INTO waypost.checkpoints VALUES ('run-1-2', 7, NULL, 'done', '2026-11-24 08:24:59.123456+00', '2026-11-30 15:29:39.835+00', '\x7b2273746570223a372c2274657874223a2278787878227d', '{}', false, '1-141', 77);
INSERT INTO waypost.checkpoints VALUES ('run-1-8', 13, NULL, 'tool_called', '2026-11-24 08:24:59.123456+00', '2026-11-30 15:29:39.835+00', '\x7b2273746570223a31322c2274657874223a2278787878787878787878787878787878787878787878227d', '{}', false, '1-142', 78);
INSERT INTO waypost.checkpoints VALUES ('run-1-2', 8, NULL, 'tool_called', '2026-11-24 08:24:59.123456+00', '2026-11-30 15:29:39.835+00', '\x7b2273746570223a382c2274657874223a22787878227d', '{}', false, '1-144', 79);
INSERT INTO waypost.checkpoints VALUES ('run-1-7', 11, NULL, 'tool_called', '2026-11-24 08:24:59.123456+00', '2026-11-30 15:29:39.835+00', '\x7b2273746570223a31312c2274657874223a22787878787878787878787878787878787878787878787878787878227d', '{}', false, '1-149', 80);
INSERT INTO waypost.checkpoints VALUES ('run-1-5', 8, NULL, 'done', '2026-11-24 08:24:59.123456+00', '2026-11-30 15:29:39.835+00', '\x7b2273746570223a382c2274657874223a22787878787878787878787878787878787878787878787878227d', '{}', true, '1-152', 82);
INSERT INTO waypost.checkpoints VALUES ('run-1-9', 14, NULL, 'done', '2026-11-24 08:24:59.123456+00', '2026-11-30 15:29:39.835+00', '\x7b2273746570223a31342c2274657874223a2278787878787878787878787878787878787878227d', '{}', false, '1-155', 83);
INSERT INTO waypost.checkpoints VALUES ('run-1-9', 15, NULL, 'done', '2026-11-24 08:24:59.123456+00', '2026-11-30 15:29:39.835+00', '\x7b2273746570223a31352c2274657874223a22787878787878787878787878787878787878227d', '{}', false, '1-157', 84);
INSERT INTO waypost.checkpoints VALUES ('run-1-8', 14, NULL, 'started', '2026-11-24 08:24:59.123456+00', '2026-11-30 15:29:39.835+00', '\x7b2273746570223a31332c2274657874223a22787878787878787878787878787878787878787878787878227d', '{}', false, '1-158', 85);
INSERT INTO waypost.checkpoints VALUES ('run-1-2', 9, NULL, 'started', '2026-11-24 08:24:59.123456+00', '2026-11-30 15:29:39.835+00', '\x7b2273746570223a392c2274657874223a2278787878787878227d', '{}', false, '1-159', 86);
INSERT INTO waypost.checkpoints VALUES ('run-1-2', 10, NULL, 'started', '2026-11-24 08:24:59.123456+00', '2026-11-30 15:29:39.835+00', '\x7b2273746570223a31302c2274657874223a22787878787878787878787878787878787878227d', '{}', false, '1-160', 87);
INSERT INTO waypost.checkpoints VALUES ('run-1-9', 16, NULL, 'done', '2026-11-24 08:24:59.123456+00', '2026-11-30 15:29:39.835+00', '\x7b2273746570223a31362c2274657874223a22787878787878787878787878787878227d', '{}', false, '1-168', 91);
INSERT INTO waypost.checkpoints VALUES ('run-1-9', 17, NULL, 'started', '2026-11-24 08:24:59.123456+00', '2026-11-30 15:29:39.835+00', '\x7b2273746570223a31372c2274657874223a227878787878787878787878787878787878787878787878787878227d', '{}', false, '1-173', 92);
INSERT INTO waypost.checkpoints VALUES ('run-1-5', 11, NULL, 'tool_called', '2026-11-24 08:24:59.123456+00', '2026-11-30 15:29:39.835+00', '\x7b2273746570223a31312c2274657874223a22787878787878787878787878787878787878787878787878787878227d', '{}', false, '1-174', 93);
INSERT INTO waypost.checkpoints VALUES ('run-1-2', 11, NULL, 'done', '2026-11-24 08:24:59.123456+00', '2026-11-30 15:29:39.835+00', '\x7b2273746570223a31312c2274657874223a22787878787878787878787878787878787878787878227d', '{}', false, '1-175', 94);
INSERT INTO waypost.checkpoints VALUES ('run-1-7', 12, NULL, 'started', '2026-11-24 08:24:59.123456+00', '2026-11-30 15:29:39.835+00', '\x7b2273746570223a31322c2274657874223a2278787878787878787878787878787878787878787878227d', '{}', false, '1-178', 95);
INSERT INTO waypost.checkpoints VALUES ('run-1-8', 15, NULL, 'tool_called', '2026-11-24 08:24:59.123456+00', '2026-11-30 15:29:39.835+00', '\x7b2273746570223a31342c2274657874223a227878787878787878787878787878787878227d', '{}', false, '1-179', 96);
INSERT INTO waypost.checkpoints VALUES ('run-1-5', 12, NULL, 'done', '2026-11-24 08:24:59.123456+00', '2026-11-30 15:29:39.835+00', '\x7b2273746570223a31322c2274657874223a2278227d', '{}', false, '1-181', 98);
INSERT INTO waypost.checkpoints VALUES ('run-1-5', 13, NULL, 'started', '2026-11-24 08:24:59.123456+00', '2026-11-30 15:29:39.835+00', '\x7b2273746570223a31332c2274657874223a22787878787878787878787878787878787878227d', '{}', false, '1-185', 99);
INSERT INTO waypost.checkpoints VALUES ('run-1-2', 12, NULL, 'started', '2026-11-24 08:24:59.123456+00', '2026-11-30 15:29:39.835+00', '\x7b2273746570223a31322c2274657874223a22787878227d', '{}', false, '1-186', 100);
INSERT INTO waypost.checkpoints VALUES ('run-1-2', 13, NULL, 'started', '2026-11-24 08:24:59.123456+00', '2026-11-30 15:29:39.835+00', '\x7b2273746570223a31332c2274657874223a2278787878787878787878787878787878227d', '{}', false, '1-194', 102);
INSERT INTO waypost.checkpoints VALUES ('run-1-7', 13, NULL, 'tool_called', '2026-11-24 08:24:59.123456+00', '2026-11-30 15:29:39.835+00', '\x7b2273746570223a31332c2274657874223a2278227d', '{}', false, '1-196', 103);
INSERT INTO waypost.checkpoints VALUES ('run-1-8', 16, NULL, 'tool_called', '2026-11-24 08:24:59.123456+00', '2026-11-30 15:29:39.835+00', '\x7b2273746570223a31352c2274657874223a2278787878787878787878787878787878787878787878227d', '{}', false, '1-199', 104);
INSERT INTO waypost.checkpoints VALUES ('run-1-8', 17, NULL, 'started', '2026-11-24 08:24:59.123456+00', '2026-11-30 15:29:39.835+00', '\x7b2273746570223a31362c2274657874223a22787878787878227d', '{}', false, '1-204', 106);
INSERT INTO waypost.checkpoints VALUES ('run-1-8', 18, NULL, 'tool_called', '2026-11-24 08:24:59.123456+00', '2026-11-30 15:29:39.835+00', '\x7b2273746570223a31372c2274657874223a2278787878787878227d', '{"n": 0.07416754906970224}', false, '1-206', 107);
INSERT INTO waypost.checkpoints VALUES ('run-1-9', 18, NULL, 'tool_called', '2026-11-24 08:24:59.123456+00', '2026-11-30 15:29:39.835+00', '\x7b2273746570223a31382c2274657874223a227878787878787878787878227d', '{}', false, '1-209', 108);
INSERT INTO waypost.checkpoints VALUES ('run-1-9', 19, NULL, 'done', '2026-11-24 08:24:59.123456+00', '2026-11-30 15:29:39.835+00', '\x7b2273746570223a31392c2274657874223a2278787878787878787878787878787878227d', '{}', false, '1-211', 110);
INSERT INTO waypost.checkpoints VALUES ('run-1-8', 19, NULL, 'tool_called', '2026-11-24 08:24:59.123456+00', '2026-11-30 15:29:39.835+00', '\x7b2273746570223a31382c2274657874223a2278227d', '{}', false, '1-216', 111);
INSERT INTO waypost.checkpoints VALUES ('run-1-5', 14, NULL, 'done', '2026-11-24 08:24:59.123456+00', '2026-11-30 15:29:39.835+00', '\x7b2273746570223a31342c2274657874223a22787878787878787878787878787878787878787878227d', '{"n": 0.09402755705351773}', false, '1-217', 112);
INSERT INTO waypost.checkpoints VALUES ('run-1-2', 14, NULL, 'done', '2026-11-24 08:24:59.123456+00', '2026-11-30 15:29:39.835+00', '\x7b2273746570223a31342c2274657874223a22787878787878787878787878787878787878787878787878787878227d', '{}', false, '1-218', 113);
INSERT INTO waypost.checkpoints VALUES ('run-1-9', 20, NULL, 'done', '2026-11-24 08:24:59.123456+00', '2026-11-30 15:29:39.835+00', '\x7b2273746570223a32302c2274657874223a22787878787878787878787878227d', '{"n": 0.09198496485556218}', false, '1-221', 114);
INSERT INTO waypost.checkpoints VALUES ('run-1-9', 21, NULL, 'done', '2026-11-24 08:24:59.123456+00', '2026-11-30 15:29:39.835+00', '\x7b2273746570223a32312c2274657874223a22787878787878787878787878787878787878227d', '{}', false, '1-195', 117);
INSERT INTO waypost.checkpoints VALUES ('run-1-8', 20, NULL, 'started', '2026-11-24 08:24:59.123456+00', '2026-11-30 15:29:39.835+00', '\x7b2273746570223a31392c2274657874223a22787878787878787878787878787878787878227d', '{}', false, '1-226', 118);
INSERT INTO waypost.checkpoints VALUES ('run-1-7', 14, NULL, 'done', '2026-11-24 08:24:59.123456+00', '2026-11-30 15:29:39.835+00', '\x7b2273746570223a31342c2274657874223a2278787878787878787878787878787878787878787878787878227d', '{}', false, '1-186', 119);
INSERT INTO waypost.checkpoints VALUES ('run-1-2', 15, NULL, 'tool_called', '2026-11-24 08:24:59.123456+00', '2026-11-30 15:29:39.835+00', '\x7b2273746570223a31352c2274657874223a22787878227d', '{}', false, '1-228', 120);
INSERT INTO waypost.checkpoints VALUES ('run-1-5', 15, NULL, 'done', '2026-11-24 08:24:59.123456+00', '2026-11-30 15:29:39.835+00', '\x7b2273746570223a31352c2274657874223a2278227d', '{}', false, '1-229', 121);
INSERT INTO waypost.checkpoints VALUES ('run-1-8', 21, NULL, 'tool_called', '2026-11-24 08:24:59.123456+00', '2026-11-30 15:29:39.835+00', '\x7b2273746570223a32302c2274657874223a2278787878787878787878227d', '{}', false, '1-233', 122);
INSERT INTO waypost.checkpoints VALUES ('run-1-5', 16, NULL, 'tool_called', '2026-11-24 08:24:59.123456+00', '2026-11-30 15:29:39.835+00', '\x7b2273746570223a31362c2274657874223a2278787878787878787878227d', '{"n": 0.03728840521506693}', false, '1-234', 123);
INSERT INTO waypost.checkpoints VALUES ('run-1-9', 22, NULL, 'done', '2026-11-24 08:24:59.123456+00', '2026-11-30 15:29:39.835+00', '\x7b2273746570223a32322c2274657874223a22787878787878787878787878787878787878787878787878787878227d', '{}', false, '1-235', 124);
INSERT INTO waypost.checkpoints VALUES ('run-1-11', 17, NULL, 'tool_called', '2026-11-24 08:24:59.123456+00', '2026-11-30 15:29:39.846+00', '\x7b2273746570223a31372c2274657874223a227878787878787878787878227d', '{"n": 0.08366348394034806}', false, '1-201', 85);
INSERT INTO waypost.checkpoints VALUES ('run-1-6', 15, NULL, 'started', '2026-11-24 08:24:59.123456+00', '2026-11-30 15:29:39.846+00', '\x7b2273746570223a31352c2274657874223a22227d', '{}', false, '1-202', 86);
INSERT INTO waypost.checkpoints VALUES ('run-1-6', 16, NULL, 'started', '2026-11-24 08:24:59.123456+00', '2026-11-30 15:29:39.846+00', '\x7b2273746570223a31362c2274657874223a227878787878227d', '{}', false, '1-207', 87);
INSERT INTO waypost.checkpoints VALUES ('run-1-6', 17, NULL, 'started', '2026-11-24 08:24:59.123456+00', '2026-11-30 15:29:39.846+00', '\x7b2273746570223a31372c2274657874223a2278787878787878787878227d', '{}', false, '1-223', 94);
INSERT INTO waypost.checkpoints VALUES ('run-1-10', 9, NULL, 'started', '2026-11-24 08:24:59.123456+00', '2026-11-30 15:29:39.846+00', '\x7b2273746570223a372c2274657874223a22787878787878787878787878787878227d', '{"n": 0.01394989327829188}', false, '1-238', 98);
INSERT INTO waypost.migrations VALUES (1, 'first', '523d86695dca5777b7163c90da2b176f711145601c6e34236a2e52a993a6d234', '2026-11-30 15:29:39.438868+00');
INSERT INTO waypost.migrations VALUES (2, 'sessions_by_activity', 'f173aed1aae361b2ed4927ad070508003d1a219c205a146616bfeca676375d34', '2026-11-30 15:29:39.46743+00');
INSERT INTO waypost.migrations VALUES (3, 'shard', '0855e59af46f20edaa0db78bc0efa7d9d2d90d7a8def7a1e5a4ace0751d101b4', '2026-11-30 15:29:39.487221+00');
INSERT INTO waypost.migrations VALUES (4, 'rejected_bounds', '30d95077bc9b4cb13123b822eb5a47aa9069c4960976652728526c1b9edefaa4', '2026-11-30 15:29:39.496488+00');
INSERT INTO waypost.migrations VALUES (5, 'rejected_window', '760ce4f33bf930b0088776f163acf07d8e5a3a7dcf1892ab3250639aa9cc1f6d', '2026-11-30 15:29:39.514749+00');
INSERT INTO waypost.migrations VALUES (6, 'foreign_results', '14951bb3a9925d9045002d3e1dd657cf7046092223bd17a96a3d707ebe44a383', '2026-11-30 15:29:39.531011+00');
INSERT INTO waypost.migrations VALUES (7, 'authority', 'd3d3fc1b231369698909231dbda201b81d20cb8140db0e7d263fdec997c42caa', '2026-11-30 15:29:39.547158+00');
INSERT INTO waypost.migrations VALUES (8, 'tenants', '0c217ea37e088710ee7c121e0368244c56e478b55932bb880ca8f382f2e555c2', '2026-11-30 15:29:39.561544+00');
INSERT INTO waypost.migrations VALUES (9, 'expiry_runs', 'ee9fe58f8826afda1f5fe4e7232dde75b4e6b98b8f9d45dab6010c517f9f0d32', '2026-11-30 15:29:39.575013+00');
INSERT INTO waypost.migrations VALUES (10, 'erased_sessions', 'bfc23fad2f19610d79d0d9bc4e4e4f5aaddee5ec9b6473208669d2211bc36c4a', '2026-11-30 15:29:39.59431+00');
INSERT INTO waypost.partitions VALUES (0, 3, 17, 1, 16, 18, '\x58e7fb03b6bcca631926a05a974da8d8', NULL, NULL, NULL, '[]', '{"parts": [[0, 0]], "since": 0, "newest_bytes": 0}', '[]', '[]', NULL, NULL, NULL);
INSERT INTO waypost.partitions VALUES (1, 3, 109, 1, 108, 110, '\x88df19307d3ca60913fd96191bda3875', NULL, NULL, '{"max_age": null, "keep_recent": 20, "compress_after": 50, "max_checkpoints": 179}', '["1-182", "1-192"]', '{"parts": [[0, 9]], "since": 0, "newest_bytes": 1668}', '[]', '[]', '{"key": null, "signed_at": null}', NULL, NULL);
INSERT INTO waypost.partitions VALUES (2, 3, 128, 1, 127, 129, '\x1fd05c505bcc42d972a2dafd873400a0', NULL, NULL, NULL, '[]', '{"parts": [[0, 4]], "since": 0, "newest_bytes": 906}', '[]', '[]', NULL, NULL, NULL);
INSERT INTO waypost.recent_commands VALUES ('run-1-11', 8, '1-22', NULL);
INSERT INTO waypost.recent_commands VALUES ('run-1-10', 17, '1-47', NULL);
INSERT INTO waypost.recent_commands VALUES ('run-1-6', 11, '1-30', 4);
INSERT INTO waypost.recent_commands VALUES ('run-1-6', 22, '1-57', 5);
INSERT INTO waypost.recent_commands VALUES ('run-1-6', 28, '1-69', 6);
INSERT INTO waypost.recent_commands VALUES ('run-1-6', 37, '1-84', 7);
INSERT INTO waypost.recent_commands VALUES ('run-1-6', 38, '1-68', 8);
INSERT INTO waypost.recent_commands VALUES ('run-1-6', 46, '1-113', 3);
INSERT INTO waypost.recent_commands VALUES ('run-1-10', 67, '1-167', 1);
INSERT INTO waypost.recent_commands VALUES ('run-1-6', 73, '1-177', 9);
INSERT INTO waypost.recent_commands VALUES ('run-1-10', 66, '1-166', 5);
INSERT INTO waypost.recent_commands VALUES ('run-1-10', 72, '1-176', 6);
INSERT INTO waypost.recent_commands VALUES ('run-1-10', 76, '1-184', 4);
INSERT INTO waypost.recent_commands VALUES ('run-1-9', 11, '1-17', 1);
INSERT INTO waypost.recent_commands VALUES ('run-1-7', 16, '1-28', 3);
INSERT INTO waypost.recent_commands VALUES ('run-1-2', 23, '1-41', 1);
INSERT INTO waypost.recent_commands VALUES ('run-1-5', 24, '1-44', NULL);
INSERT INTO waypost.recent_commands VALUES ('run-1-5', 26, '1-46', 2);
INSERT INTO waypost.recent_commands VALUES ('run-1-5', 6, '1-10', 2);
INSERT INTO waypost.recent_commands VALUES ('run-1-5', 30, '1-52', 3);
INSERT INTO waypost.recent_commands VALUES ('run-1-5', 32, '1-59', 1);
INSERT INTO waypost.recent_commands VALUES ('run-1-9', 33, '1-61', 1);
INSERT INTO waypost.recent_commands VALUES ('run-1-1', 35, '1-64', 4);
INSERT INTO waypost.recent_commands VALUES ('run-1-8', 39, '1-71', NULL);
INSERT INTO waypost.recent_commands VALUES ('run-1-7', 41, '1-80', 2);
INSERT INTO waypost.recent_commands VALUES ('run-1-9', 42, '1-82', NULL);
INSERT INTO waypost.recent_commands VALUES ('run-1-7', 22, '1-0', 6);
INSERT INTO waypost.recent_commands VALUES ('run-1-7', 54, '1-102', 6);
INSERT INTO waypost.recent_commands VALUES ('run-1-7', 70, '1-129', 4);
INSERT INTO waypost.recent_commands VALUES ('run-1-5', 97, '1-180', 8);
INSERT INTO waypost.recent_commands VALUES ('run-1-5', 109, '1-210', 12);
INSERT INTO waypost.recent_commands VALUES ('run-1-5', 46, '1-89', 4);
INSERT INTO waypost.recent_commands VALUES ('run-1-5', 60, '1-109', 5);
INSERT INTO waypost.recent_commands VALUES ('run-1-5', 64, '1-119', 6);
INSERT INTO waypost.recent_commands VALUES ('run-1-5', 67, '1-125', 7);
INSERT INTO waypost.recent_commands VALUES ('run-1-5', 115, '1-222', NULL);
INSERT INTO waypost.recent_commands VALUES ('run-1-5', 88, '1-161', 9);
INSERT INTO waypost.recent_commands VALUES ('run-1-5', 90, '1-164', 10);
INSERT INTO waypost.recent_commands VALUES ('run-1-11', 90, '1-213', 17);
INSERT INTO waypost.recent_commands VALUES ('run-1-10', 93, '1-219', NULL);
INSERT INTO waypost.recent_commands VALUES ('run-1-1', 2, '1-3', 1);
INSERT INTO waypost.recent_commands VALUES ('run-1-1', 17, '1-29', 2);
INSERT INTO waypost.recent_commands VALUES ('run-1-1', 28, '1-50', 3);
INSERT INTO waypost.recent_commands VALUES ('run-1-1', 34, '1-62', 4);
INSERT INTO waypost.recent_commands VALUES ('run-1-1', 36, '1-67', 5);
INSERT INTO waypost.recent_commands VALUES ('run-1-1', 38, '1-70', 6);
INSERT INTO waypost.recent_commands VALUES ('run-1-1', 45, '1-88', 7);
INSERT INTO waypost.recent_commands VALUES ('run-1-1', 50, '1-96', 8);
INSERT INTO waypost.recent_commands VALUES ('run-1-1', 51, '1-97', 9);
INSERT INTO waypost.recent_commands VALUES ('run-1-1', 63, '1-117', 10);
INSERT INTO waypost.recent_commands VALUES ('run-1-1', 68, '1-126', 11);
INSERT INTO waypost.recent_commands VALUES ('run-1-1', 69, '1-128', 12);
INSERT INTO waypost.recent_commands VALUES ('run-1-1', 71, '1-131', 13);
INSERT INTO waypost.recent_commands VALUES ('run-1-1', 72, '1-132', 14);
INSERT INTO waypost.recent_commands VALUES ('run-1-1', 89, '1-163', 15);
INSERT INTO waypost.recent_commands VALUES ('run-1-1', 101, '1-191', 16);
INSERT INTO waypost.recent_commands VALUES ('run-1-1', 105, '1-203', 17);
INSERT INTO waypost.recent_commands VALUES ('run-1-1', 116, '1-224', 18);
INSERT INTO waypost.recent_commands VALUES ('run-1-1', 125, '1-236', 19);
INSERT INTO waypost.recent_commands VALUES ('run-1-1', 126, 'ffa97d96-8698-443f-81c6-f302178c9877', NULL);
INSERT INTO waypost.recent_commands VALUES ('run-1-0', 15, '5a3cb086-65f6-433b-8e4a-af6b0c0f3e3e', NULL);
INSERT INTO waypost.recent_commands VALUES ('never-was', 16, 'f52aef12-c2f3-4b4a-8800-9c23a529dde8', NULL);
INSERT INTO waypost.recent_commands VALUES ('run-1-3', 102, '01abd84e-900d-4a85-9c90-43271e964183', NULL);
INSERT INTO waypost.recent_commands VALUES ('run-1-4', 107, 'ac518466-640c-4afe-b7e1-11e97ccca48f', NULL);
INSERT INTO waypost.rejected_commands VALUES (1, 12, 'run-1-10', '1-32', 'unknown-checkpoint', '''run-1-10'' holds no checkpoint ''run-1-10:1'': it was never made, belongs to another session, or was removed', '\x72756e2d312d3130', '\x7b22636865636b706f696e745f6964223a2272756e2d312d31303a31227d', '\x5b5b2263655f7370656376657273696f6e222c22312e30225d2c5b2263655f6964222c22312d3332225d2c5b2263655f736f75726365222c222f776f726b6c6f6164225d2c5b2263655f74797065222c22776179706f73742e636865636b706f696e742e756e70696e225d2c5b2263655f74696d65222c22323032362d31312d32345430383a32343a35392e3132333435365a225d2c5b22636f6e74656e742d74797065222c226170706c69636174696f6e2f6a736f6e225d5d', '2026-11-30 15:29:39.817+00', NULL, NULL);
INSERT INTO waypost.rejected_commands VALUES (1, 56, 'run-1-6', '1-140', 'unknown-checkpoint', '''run-1-6'' holds no checkpoint ''run-1-6:5'': it was never made, belongs to another session, or was removed', '\x72756e2d312d36', '\x7b22636865636b706f696e745f6964223a2272756e2d312d363a35227d', '\x5b5b2263655f7370656376657273696f6e222c22312e30225d2c5b2263655f6964222c22312d313430225d2c5b2263655f736f75726365222c222f776f726b6c6f6164225d2c5b2263655f74797065222c22776179706f73742e636865636b706f696e742e70696e225d2c5b2263655f74696d65222c22323032362d31312d32345430383a32343a35392e3132333435365a225d2c5b22636f6e74656e742d74797065222c226170706c69636174696f6e2f6a736f6e225d5d', '2026-11-30 15:29:39.846+00', NULL, NULL);
INSERT INTO waypost.rejected_commands VALUES (1, 57, 'run-1-11', '1-143', 'conflict', 'checkpoint ''run-1-11:10'' exists already and on_conflict is ''reject'': nothing was imported; use ''skip'' or ''replace'', or import into an empty session', '\x72756e2d312d3131', '\x7b22636865636b706f696e7473223a5b7b226964223a2272756e2d312d31313a3130222c226e616d65223a22696d706f72746564222c2274696d657374616d70223a22323032362d31312d32345430383a30303a30305a222c2264617461223a7b226f66223a2272756e2d312d31313a3130222c226e223a302e393439333436343038303335353636357d7d2c7b226964223a226f746865723a33222c226e616d65223a22696d706f72746564222c2274696d657374616d70223a22323032362d31312d32345430383a30303a30305a222c2264617461223a7b226f66223a226f746865723a33222c226e223a302e393439333436343038303335353636357d7d5d2c226f6e5f636f6e666c696374223a2272656a656374227d', '\x5b5b2263655f7370656376657273696f6e222c22312e30225d2c5b2263655f6964222c22312d313433225d2c5b2263655f736f75726365222c222f776f726b6c6f6164225d2c5b2263655f74797065222c22776179706f73742e73657373696f6e2e696d706f7274225d2c5b2263655f74696d65222c22323032362d31312d32345430383a32343a35392e3132333435365a225d2c5b22636f6e74656e742d74797065222c226170706c69636174696f6e2f6a736f6e225d5d', '2026-11-30 15:29:39.846+00', NULL, NULL);
INSERT INTO waypost.rejected_commands VALUES (2, 0, 'run-1-2', '1-0', 'unknown-checkpoint', '''run-1-2'' holds no checkpoint ''run-1-2:1'': it was never made, belongs to another session, or was removed', '\x72756e2d312d32', '\x7b22636865636b706f696e745f6964223a2272756e2d312d323a31227d', '\x5b5b2263655f7370656376657273696f6e222c22312e30225d2c5b2263655f6964222c22312d30225d2c5b2263655f736f75726365222c222f776f726b6c6f6164225d2c5b2263655f74797065222c22776179706f73742e636865636b706f696e742e70696e225d2c5b2263655f74696d65222c22323032362d31312d32345430383a32343a35392e3132333435365a225d2c5b22636f6e74656e742d74797065222c226170706c69636174696f6e2f6a736f6e225d5d', '2026-11-30 15:29:39.813+00', NULL, NULL);
INSERT INTO waypost.rejected_commands VALUES (2, 5, 'run-1-9', '1-8', 'unknown-checkpoint', '''run-1-9'' holds no checkpoint ''run-1-9:1'': it was never made, belongs to another session, or was removed', '\x72756e2d312d39', '\x7b22636865636b706f696e745f6964223a2272756e2d312d393a31227d', '\x5b5b2263655f7370656376657273696f6e222c22312e30225d2c5b2263655f6964222c22312d38225d2c5b2263655f736f75726365222c222f776f726b6c6f6164225d2c5b2263655f74797065222c22776179706f73742e636865636b706f696e742e756e70696e225d2c5b2263655f74696d65222c22323032362d31312d32345430383a32343a35392e3132333435365a225d2c5b22636f6e74656e742d74797065222c226170706c69636174696f6e2f6a736f6e225d5d', '2026-11-30 15:29:39.813+00', NULL, NULL);
INSERT INTO waypost.rejected_commands VALUES (2, 18, 'run-1-2', '1-31', 'unknown-checkpoint', '''run-1-2'' holds no checkpoint ''run-1-2:1'': it was never made, belongs to another session, or was removed', '\x72756e2d312d32', '\x7b22636865636b706f696e745f6964223a2272756e2d312d323a31227d', '\x5b5b2263655f7370656376657273696f6e222c22312e30225d2c5b2263655f6964222c22312d3331225d2c5b2263655f736f75726365222c222f776f726b6c6f6164225d2c5b2263655f74797065222c22776179706f73742e636865636b706f696e742e756e70696e225d2c5b2263655f74696d65222c22323032362d31312d32345430383a32343a35392e3132333435365a225d2c5b22636f6e74656e742d74797065222c226170706c69636174696f6e2f6a736f6e225d5d', '2026-11-30 15:29:39.813+00', NULL, NULL);
INSERT INTO waypost.rejected_commands VALUES (2, 81, 'run-1-7', '1-151', 'unknown-checkpoint', '''run-1-7'' holds no checkpoint ''run-1-7:6'': it was never made, belongs to another session, or was removed', '\x72756e2d312d37', '\x7b22636865636b706f696e745f6964223a2272756e2d312d373a36222c22646973636172645f6c61746572223a747275657d', '\x5b5b2263655f7370656376657273696f6e222c22312e30225d2c5b2263655f6964222c22312d313531225d2c5b2263655f736f75726365222c222f776f726b6c6f6164225d2c5b2263655f74797065222c22776179706f73742e73657373696f6e2e726f6c6c6261636b225d2c5b2263655f74696d65222c22323032362d31312d32345430383a32343a35392e3132333435365a225d2c5b22636f6e74656e742d74797065222c226170706c69636174696f6e2f6a736f6e225d5d', '2026-11-30 15:29:39.835+00', NULL, NULL);
INSERT INTO waypost.rejected_commands VALUES (1, 103, 'run-1-3', 'a239b158-38b1-4772-8874-487fe34674de', 'erased', 'session ''run-1-3'' was erased at 2026-11-30T15:29:40.481000Z and takes no more commands; the content of this one was not kept: use another session id', '\x72756e2d312d33', '\x', '\x5b5d', '2026-11-30 15:29:40.481+00', 42, 168);
INSERT INTO waypost.rejected_commands VALUES (1, 108, 'run-1-4', '7ab9380c-480e-489e-b1f2-53b17944f4e8', 'erased', 'session ''run-1-4'' was erased at 2026-11-30T15:29:40.481000Z and takes no more commands; the content of this one was not kept: use another session id', '\x72756e2d312d34', '\x', '\x5b5d', '2026-11-30 15:29:40.481+00', 2, 164);
INSERT INTO waypost.sessions VALUES ('run-1-7', 2, 14, NULL, 13, '2026-11-30 15:29:39.813+00', '2026-11-30 15:29:39.835+00', DEFAULT, NULL);
INSERT INTO waypost.sessions VALUES ('run-1-5', 2, 16, '{"max_age": null, "keep_recent": 20, "compress_after": 30, "max_checkpoints": 8}', 8, '2026-11-30 15:29:39.813+00', '2026-11-30 15:29:39.835+00', DEFAULT, NULL);
INSERT INTO waypost.sessions VALUES ('run-1-8', 2, 21, NULL, 21, '2026-11-30 15:29:39.813+00', '2026-11-30 15:29:39.835+00', DEFAULT, NULL);
INSERT INTO waypost.sessions VALUES ('run-1-9', 2, 22, '{"max_age": null, "keep_recent": 20, "compress_after": 30, "max_checkpoints": 26}', 22, '2026-11-30 15:29:39.813+00', '2026-11-30 15:29:39.835+00', DEFAULT, NULL);
INSERT INTO waypost.sessions VALUES ('run-1-2', 2, 15, NULL, 15, '2026-11-30 15:29:39.813+00', '2026-11-30 15:29:39.835+00', DEFAULT, NULL);
INSERT INTO waypost.sessions VALUES ('run-1-11', 1, 17, '{"max_age": null, "keep_recent": 20, "compress_after": 30, "max_checkpoints": 43}', 17, '2026-11-30 15:29:39.817+00', '2026-11-30 15:29:39.846+00', DEFAULT, NULL);
INSERT INTO waypost.sessions VALUES ('run-1-6', 1, 17, NULL, 12, '2026-11-30 15:29:39.817+00', '2026-11-30 15:29:39.846+00', DEFAULT, NULL);
INSERT INTO waypost.sessions VALUES ('run-1-10', 1, 9, '{"max_age": null, "keep_recent": 20, "compress_after": 30, "max_checkpoints": 54}', 7, '2026-11-30 15:29:39.817+00', '2026-11-30 15:29:39.846+00', DEFAULT, NULL);
INSERT INTO waypost.sessions VALUES ('run-1-1', 2, 19, NULL, 0, '2026-11-30 15:29:39.813+00', '2026-11-30 15:29:40.359+00', DEFAULT, NULL);
INSERT INTO waypost.sessions VALUES ('run-1-0', 0, 13, '{"max_age": null, "keep_recent": 20, "compress_after": 30, "max_checkpoints": 26}', 0, '2026-11-30 15:29:39.819+00', '2026-11-30 15:29:40.424+00', DEFAULT, NULL);
INSERT INTO waypost.sessions VALUES ('never-was', 0, 0, NULL, 0, '2026-11-30 15:29:40.481+00', '2026-11-30 15:29:40.481+00', DEFAULT, '2026-11-30 15:29:40.481+00');
INSERT INTO waypost.sessions VALUES ('run-1-3', 1, 16, NULL, 0, '2026-11-30 15:29:39.817+00', '2026-11-30 15:29:40.481+00', DEFAULT, '2026-11-30 15:29:40.481+00');
INSERT INTO waypost.sessions VALUES ('run-1-4', 1, 21, NULL, 0, '2026-11-30 15:29:39.817+00', '2026-11-30 15:29:40.481+00', DEFAULT, '2026-11-30 15:29:40.481+00');
ALTER TABLE ONLY waypost.checkpoints
    ADD CONSTRAINT checkpoints_pkey PRIMARY KEY (session_id, number);
ALTER TABLE ONLY waypost.expiry_runs
    ADD CONSTRAINT expiry_runs_pkey PRIMARY KEY (prefix);
ALTER TABLE ONLY waypost.migrations
    ADD CONSTRAINT migrations_pkey PRIMARY KEY (number);
ALTER TABLE ONLY waypost.outbox
    ADD CONSTRAINT outbox_pkey PRIMARY KEY (partition, last_offset);
ALTER TABLE ONLY waypost.partitions
    ADD CONSTRAINT partitions_pkey PRIMARY KEY (partition);
ALTER TABLE ONLY waypost.recent_commands
    ADD CONSTRAINT recent_commands_pkey PRIMARY KEY (session_id, "position");
ALTER TABLE ONLY waypost.rejected_commands
    ADD CONSTRAINT rejected_commands_pkey PRIMARY KEY (partition, "offset");
ALTER TABLE ONLY waypost.sessions
    ADD CONSTRAINT sessions_pkey PRIMARY KEY (session_id);
ALTER TABLE ONLY waypost.shard
    ADD CONSTRAINT shard_pkey PRIMARY KEY (only_row);
ALTER TABLE ONLY waypost.tenant_roles
    ADD CONSTRAINT tenant_roles_pkey PRIMARY KEY (role_name);
CREATE INDEX checkpoints_imported ON waypost.checkpoints USING btree (session_id, imported_id, number) WHERE (imported_id IS NOT NULL);
CREATE INDEX sessions_by_activity ON waypost.sessions USING btree (active_minute);
CREATE INDEX sessions_erased ON waypost.sessions USING btree (erased_at) WHERE (erased_at IS NOT NULL);
