-- What the statements of statements.txt use: something of each kind that can hide a write.

CREATE TABLE t (id int PRIMARY KEY, name text, amount numeric, tags text[], doc jsonb, at timestamptz);
CREATE TABLE people (first text, last text);
CREATE TABLE queue (id int, state text);
CREATE TABLE log (line text);
CREATE TABLE "Mixed Case" ("Id" int, "select" text);
INSERT INTO t VALUES (1, 'one', 1.5, '{a,b}', '{"k": 1}', '2024-01-01Z'), (2, 'two', 2.5, '{c}', '{"k": 2}', NULL);
INSERT INTO people VALUES ('Ada', 'Lovelace');
INSERT INTO "Mixed Case" VALUES (1, 'x');
CREATE SEQUENCE seq;

-- Functions of each volatility.
CREATE FUNCTION immutable_one(int) RETURNS int IMMUTABLE LANGUAGE sql AS 'SELECT $1 + 1';
CREATE FUNCTION stable_one(int) RETURNS int STABLE LANGUAGE sql AS 'SELECT count(*)::int + $1 FROM t';
CREATE FUNCTION volatile_one(int) RETURNS int LANGUAGE plpgsql
    AS 'BEGIN INSERT INTO log VALUES (''called''); RETURN $1; END';
CREATE FUNCTION overloaded(int) RETURNS int IMMUTABLE LANGUAGE sql AS 'SELECT $1';
CREATE FUNCTION overloaded(text) RETURNS int LANGUAGE plpgsql AS 'BEGIN DELETE FROM log; RETURN 1; END';
CREATE FUNCTION stable_rows(int) RETURNS SETOF t STABLE LANGUAGE sql AS 'SELECT * FROM t WHERE id > $1';
CREATE FUNCTION volatile_rows(int) RETURNS SETOF t LANGUAGE sql AS 'SELECT * FROM t WHERE id > $1';
CREATE FUNCTION "Quoted Stable"(int) RETURNS int STABLE LANGUAGE sql AS 'SELECT $1';
CREATE FUNCTION "Quoted Volatile"(int) RETURNS int LANGUAGE sql AS 'SELECT $1';
CREATE FUNCTION stable_default(n int DEFAULT 1) RETURNS int STABLE LANGUAGE sql AS 'SELECT n';
CREATE FUNCTION full_name(people) RETURNS text STABLE LANGUAGE sql AS 'SELECT $1.first || '' '' || $1.last';
CREATE FUNCTION greeted_name(people) RETURNS text LANGUAGE sql
    AS 'INSERT INTO log VALUES ($1.first); SELECT $1.first';
CREATE PROCEDURE work(int) LANGUAGE sql AS 'INSERT INTO log VALUES (''worked'')';
CREATE PROCEDURE stable_one(text) LANGUAGE sql AS 'DELETE FROM log';
CREATE FUNCTION stable_rows() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END';
CREATE FUNCTION add_immutable(state int, value int) RETURNS int IMMUTABLE LANGUAGE sql AS 'SELECT state + value';
CREATE FUNCTION add_volatile(state int, value int) RETURNS int LANGUAGE sql AS 'SELECT state + value';
CREATE AGGREGATE sum_immutable(int) (SFUNC = add_immutable, STYPE = int, INITCOND = '0');
CREATE AGGREGATE sum_volatile(int) (SFUNC = add_volatile, STYPE = int, INITCOND = '0');

-- The same names elsewhere.
CREATE SCHEMA other;
CREATE FUNCTION other.immutable_one(int) RETURNS int LANGUAGE sql AS 'SELECT $1';
CREATE FUNCTION other.only_there(int) RETURNS int STABLE LANGUAGE sql AS 'SELECT $1';
CREATE TABLE other.t (id int);
CREATE SCHEMA tricks;
CREATE FUNCTION tricks.lower(text) RETURNS text LANGUAGE sql AS 'SELECT $1';
CREATE FUNCTION tricks.concat_all(text, text) RETURNS text LANGUAGE sql AS 'SELECT $1 || $2';
CREATE OPERATOR tricks.|| (LEFTARG = text, RIGHTARG = text, FUNCTION = tricks.concat_all);
CREATE VIEW tricks.t AS SELECT nextval('seq') AS id;

-- Views.
CREATE VIEW v_plain AS SELECT id, name FROM t;
CREATE VIEW v_stable AS SELECT stable_one(id) AS n FROM t;
CREATE VIEW v_harmless AS SELECT random() AS r, clock_timestamp() AS c;
CREATE VIEW v_volatile AS SELECT volatile_one(id) AS n FROM t;
CREATE VIEW v_over_v AS SELECT n FROM v_volatile WHERE n > 0;
CREATE VIEW v_over_v_over_v AS SELECT a.id FROM v_plain AS a WHERE EXISTS (SELECT FROM v_over_v WHERE n = a.id);
CREATE VIEW v_over_plain AS SELECT count(*) FROM v_plain;
CREATE VIEW v_nextval AS SELECT nextval('seq') AS n;
CREATE VIEW v_txid AS SELECT txid_current() AS n;
CREATE VIEW v_pid AS SELECT pg_backend_pid() AS n;
CREATE VIEW v_sequence AS SELECT last_value FROM seq;
CREATE VIEW v_config AS SELECT set_config('my.setting', 'x', false) AS s;
CREATE VIEW v_hidden AS SELECT id FROM t ORDER BY (SELECT max(n) FROM v_over_v);
CREATE VIEW v_aggregate AS SELECT sum_volatile(id) FROM t;
CREATE VIEW v_sample AS SELECT id FROM t TABLESAMPLE system (50);
CREATE VIEW v_lock AS SELECT id FROM t FOR UPDATE;
CREATE VIEW v_over_lock AS SELECT count(*) FROM v_lock;
CREATE UNLOGGED TABLE unlogged (id int);
CREATE VIEW v_unlogged AS SELECT * FROM unlogged;
CREATE MATERIALIZED VIEW m_volatile AS SELECT volatile_one(id) AS n FROM t;

-- Policies.
CREATE TABLE p_stable (id int);
CREATE TABLE p_volatile (id int);
CREATE TABLE p_update (id int);
CREATE TABLE p_view (id int);
ALTER TABLE p_stable ENABLE ROW LEVEL SECURITY;
ALTER TABLE p_volatile ENABLE ROW LEVEL SECURITY;
ALTER TABLE p_update ENABLE ROW LEVEL SECURITY;
ALTER TABLE p_view ENABLE ROW LEVEL SECURITY;
CREATE POLICY p ON p_stable USING (id = current_setting('my.tenant', true)::int);
CREATE POLICY p ON p_volatile FOR SELECT USING (id = volatile_one(1));
CREATE POLICY p ON p_update FOR UPDATE USING (id = volatile_one(1));
CREATE POLICY p ON p_view USING (EXISTS (SELECT FROM v_over_v));
CREATE VIEW v_policy AS SELECT * FROM p_volatile;

-- Operators, casts and types.
CREATE OPERATOR <+> (LEFTARG = int, RIGHTARG = int, FUNCTION = add_volatile);
CREATE OPERATOR <=+> (LEFTARG = int, RIGHTARG = int, FUNCTION = add_immutable);
CREATE VIEW v_operator AS SELECT id <+> 1 AS n FROM t;
CREATE TYPE celsius AS (degrees int);
CREATE TYPE kelvin AS (degrees int);
CREATE TYPE mood AS ENUM ('glad', 'sad');
CREATE FUNCTION to_celsius(kelvin) RETURNS celsius IMMUTABLE LANGUAGE sql AS 'SELECT ROW($1.degrees - 273)::celsius';
CREATE FUNCTION to_kelvin(celsius) RETURNS kelvin LANGUAGE sql AS 'SELECT ROW($1.degrees + 273)::kelvin';
CREATE CAST (kelvin AS celsius) WITH FUNCTION to_celsius(kelvin);
CREATE CAST (celsius AS kelvin) WITH FUNCTION to_kelvin(celsius);
CREATE FUNCTION is_fine_volatile(int) RETURNS boolean LANGUAGE sql AS 'SELECT true';
CREATE DOMAIN positive AS int CHECK (VALUE > 0);
CREATE DOMAIN checked AS int CHECK (is_fine_volatile(VALUE));
CREATE DOMAIN checked_again AS checked;
CREATE VIEW v_domain AS SELECT id::checked FROM t;

-- Elsewhere.
CREATE FOREIGN DATA WRAPPER nothing;
CREATE SERVER nowhere FOREIGN DATA WRAPPER nothing;
CREATE FOREIGN TABLE foreign_t (id int) SERVER nowhere;
CREATE VIEW v_foreign AS SELECT * FROM foreign_t;
CREATE TABLE parted (id int) PARTITION BY RANGE (id);
CREATE TABLE parted_1 PARTITION OF parted FOR VALUES FROM (0) TO (10);
CREATE TABLE parted_far (id int) PARTITION BY RANGE (id);
CREATE FOREIGN TABLE parted_far_1 PARTITION OF parted_far FOR VALUES FROM (0) TO (10) SERVER nowhere;

-- Reads the catalog, and may do nothing else.
CREATE ROLE ordinary LOGIN;
