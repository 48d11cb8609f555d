//! What a catalog is read by: SQL that any role may run, on PostgreSQL 13 and newer. Every column is a text.

/// One query of a catalog.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Query {
    Functions,
    Relations,
    Operators,
    Types,
    References,
}

impl Query {
    /// A catalog needs the rows of all of them, read in one transaction of one snapshot (REPEATABLE READ).
    pub const ALL: [Query; 5] =
        [Query::Functions, Query::Relations, Query::Operators, Query::Types, Query::References];

    pub fn sql(self) -> &'static str {
        match self {
            Query::Functions => FUNCTIONS,
            Query::Relations => RELATIONS,
            Query::Operators => OPERATORS,
            Query::Types => TYPES,
            Query::References => REFERENCES,
        }
    }

    /// How many columns its rows have.
    pub fn columns(self) -> usize {
        match self {
            Query::Functions => 6,
            Query::Relations | Query::References => 4,
            Query::Operators | Query::Types => 3,
        }
    }
}

/// A number that is another one when a catalog should be read anew. Cheap enough to be asked every few seconds.
///
/// `xmin` changes with every change of a row. Temporary objects are left out: they come and go, and no catalog of ours
/// has them.
pub const FINGERPRINT: &str = "\
SELECT sum(pg_catalog.hashint8(here))::text FROM (
    SELECT oid::bigint << 32 | xmin::text::bigint FROM pg_catalog.pg_proc
    UNION ALL SELECT w.oid::bigint << 32 | w.xmin::text::bigint
        FROM pg_catalog.pg_rewrite AS w JOIN pg_catalog.pg_class AS c ON c.oid = w.ev_class
        WHERE c.relpersistence <> 't'
    UNION ALL SELECT oid::bigint << 32 | xmin::text::bigint FROM pg_catalog.pg_policy
    UNION ALL SELECT oid::bigint << 32 | xmin::text::bigint FROM pg_catalog.pg_operator
    UNION ALL SELECT oid::bigint << 32 | xmin::text::bigint FROM pg_catalog.pg_cast
    UNION ALL SELECT oid::bigint << 32 | xmin::text::bigint FROM pg_catalog.pg_namespace
        WHERE nspname !~ '^pg_(toast_)?temp_'
    UNION ALL SELECT oid::bigint << 32 | xmin::text::bigint FROM pg_catalog.pg_amop
    UNION ALL SELECT oid::bigint << 32 | xmin::text::bigint FROM pg_catalog.pg_amproc
    UNION ALL SELECT oid::bigint << 32 | xmin::text::bigint FROM pg_catalog.pg_constraint WHERE contypid <> 0
    UNION ALL SELECT oid::bigint << 32 | xmin::text::bigint FROM pg_catalog.pg_type
        WHERE typrelid = 0 AND typcategory <> 'A'
    UNION ALL SELECT inhrelid::bigint << 32 | inhparent::bigint FROM pg_catalog.pg_inherits
    UNION ALL SELECT pg_catalog.hashtextextended(
            pg_catalog.concat_ws(' ', oid, relname, relnamespace, relkind, relpersistence), 0)
        FROM pg_catalog.pg_class WHERE relpersistence <> 't'
) AS rows (here)";

/// oid, schema, name, volatility (`i`, `s`, `v`), the extension it belongs to, and whether `column.name` can call it.
/// Procedures and the functions of triggers are left out: no query can call them.
const FUNCTIONS: &str = "\
SELECT p.oid::text, n.nspname::text, p.proname::text, p.provolatile::text, coalesce(e.extname::text, ''),
       coalesce(p.pronargs = 1 AND a.typtype IN ('c', 'p'), false)::text
FROM pg_catalog.pg_proc AS p
JOIN pg_catalog.pg_namespace AS n ON n.oid = p.pronamespace
LEFT JOIN pg_catalog.pg_type AS a ON a.oid = p.proargtypes[0]
LEFT JOIN pg_catalog.pg_depend AS d ON d.deptype = 'e' AND d.classid = 'pg_catalog.pg_proc'::regclass
    AND d.objid = p.oid AND d.refclassid = 'pg_catalog.pg_extension'::regclass
LEFT JOIN pg_catalog.pg_extension AS e ON e.oid = d.refobjid
WHERE p.prokind <> 'p'
    AND p.prorettype NOT IN ('pg_catalog.trigger'::regtype, 'pg_catalog.event_trigger'::regtype)";

/// oid, schema, name, kind (`pg_class.relkind`, or `u` for what is unlogged).
const RELATIONS: &str = "\
SELECT c.oid::text, n.nspname::text, c.relname::text,
       CASE c.relpersistence WHEN 'u' THEN 'u' ELSE c.relkind::text END
FROM pg_catalog.pg_class AS c
JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
WHERE c.relkind IN ('r', 'v', 'm', 'f', 'p', 'S') AND c.relpersistence <> 't' AND n.nspname <> 'pg_toast'";

/// oid, schema, name.
const OPERATORS: &str = "\
SELECT o.oid::text, n.nspname::text, o.oprname::text
FROM pg_catalog.pg_operator AS o
JOIN pg_catalog.pg_namespace AS n ON n.oid = o.oprnamespace";

/// oid, schema, name.
const TYPES: &str = "\
SELECT t.oid::text, n.nspname::text, t.typname::text
FROM pg_catalog.pg_type AS t
JOIN pg_catalog.pg_namespace AS n ON n.oid = t.typnamespace
WHERE n.nspname <> 'pg_toast' AND n.nspname !~ '^pg_(toast_)?temp_'";

/// What running one thing can run: kind and oid of the one, kind and oid of the other. Kinds are `f` function,
/// `r` relation, `o` operator, `t` type, and with the oid 0 `i` for what can run where no text shows it, and `w` for
/// taking locks on rows, as a view with FOR UPDATE does.
///
/// Rules, policies and constraints are stored as trees, in a text that names each function, relation and type by its
/// oid. `pg_depend` would not do: it leaves out what is built in. A materialized view has a rule as well, which runs when
/// it is refreshed, not when it is read.
const REFERENCES: &str = "\
WITH trees (kind, oid, tree) AS (
    SELECT 'r', ev_class, ev_action::text
    FROM pg_catalog.pg_rewrite JOIN pg_catalog.pg_class AS c ON c.oid = ev_class
    WHERE ev_type = '1' AND c.relkind <> 'm'
    UNION ALL
    SELECT 'r', polrelid, polqual::text FROM pg_catalog.pg_policy WHERE polcmd IN ('r', '*')
    UNION ALL
    SELECT 't', contypid, conbin::text FROM pg_catalog.pg_constraint WHERE contypid <> 0
), named (kind, oid, field, named) AS (
    SELECT DISTINCT kind, oid, found[1], found[2]
    FROM trees,
         pg_catalog.regexp_matches(
             tree,
             ':(funcid|opfuncid|aggfnoid|winfnoid|tsmhandler|relid|resulttype|eqop|sortop) ([0-9]+)',
             'g'
         ) AS found
    WHERE found[2] <> '0'
)
SELECT kind, oid::text,
       CASE field WHEN 'relid' THEN 'r' WHEN 'resulttype' THEN 't' WHEN 'eqop' THEN 'o' WHEN 'sortop' THEN 'o'
                  ELSE 'f' END,
       named
FROM named
UNION ALL
SELECT kind, oid::text, 'w', '0' FROM trees WHERE tree LIKE '%:hasForUpdate true%'
UNION ALL
SELECT 'r', inhparent::text, 'r', inhrelid::text FROM pg_catalog.pg_inherits
UNION ALL
SELECT 'o', oid::text, 'f', oprcode::oid::text FROM pg_catalog.pg_operator WHERE oprcode <> 0
UNION ALL
SELECT 'f', aggfnoid::oid::text, 'f', part::oid::text
FROM pg_catalog.pg_aggregate,
     unnest(ARRAY[aggtransfn, aggfinalfn, aggcombinefn, aggserialfn, aggdeserialfn, aggmtransfn, aggminvtransfn,
                  aggmfinalfn]) AS part
WHERE part <> 0
UNION ALL
SELECT 't', casttarget::text, 'f', castfunc::text FROM pg_catalog.pg_cast WHERE castfunc <> 0
UNION ALL
SELECT 'i', '0', 'f', castfunc::text FROM pg_catalog.pg_cast WHERE castfunc <> 0 AND castcontext = 'i'
UNION ALL
SELECT 'i', '0', 'o', amopopr::text FROM pg_catalog.pg_amop
UNION ALL
SELECT 'i', '0', 'f', amproc::oid::text FROM pg_catalog.pg_amproc
UNION ALL
SELECT 't', oid::text, 't', typbasetype::text FROM pg_catalog.pg_type WHERE typbasetype <> 0
UNION ALL
SELECT 't', oid::text, 't', typelem::text FROM pg_catalog.pg_type WHERE typelem <> 0
UNION ALL
SELECT 't', oid::text, 'f', part::oid::text
FROM pg_catalog.pg_type, unnest(ARRAY[typinput, typoutput, typreceive, typsend]) AS part
WHERE part <> 0 AND typtype IN ('b', 'r', 'm')";
