//! What folding, remembering and judging cost: `cargo run --release -p sqlclass --example bench_sqlclass`.
//!
//! Prints, for each statement, the best of several rounds in nanoseconds. The catalog is made by hand, so no server is
//! needed; names that it does not have are looked up all the same.

use std::hint::black_box;
use std::time::Instant;

use sqlclass::{
    Builder, Catalog, Classifier, Context, Folder, Query, Scope, SearchPath, Session, Source, classify,
};

const ROUNDS: usize = 15;
const CALLS: usize = 20_000;

const STATEMENTS: &[(&str, &str)] = &[
    ("point select", "SELECT abalance FROM pgbench_accounts WHERE aid = 4711;"),
    ("with a parameter", "SELECT id, name, email, created_at FROM users WHERE id = $1"),
    (
        "of an ORM",
        "SELECT \"users\".\"id\", \"users\".\"name\", \"users\".\"email\", \"users\".\"admin\" FROM \"users\" \
         WHERE \"users\".\"email\" = 'a@example.org' ORDER BY \"users\".\"id\" LIMIT 1",
    ),
    (
        "join and aggregate",
        "SELECT c.name, count(*) AS orders, sum(o.total) AS total FROM customers c \
         JOIN orders o ON o.customer_id = c.id WHERE o.created_at > '2024-01-01' AND o.state IN ('paid', 'sent') \
         GROUP BY c.name HAVING sum(o.total) > 1000 ORDER BY total DESC LIMIT 50",
    ),
    (
        "insert",
        "INSERT INTO orders (customer_id, total, state) VALUES (42, 19.99, 'new') RETURNING id, created_at",
    ),
    (
        "change in a WITH",
        "WITH moved AS (DELETE FROM queue WHERE id IN (SELECT id FROM queue ORDER BY id LIMIT 10) RETURNING *) \
         INSERT INTO done SELECT * FROM moved",
    ),
    ("begin", "BEGIN"),
    ("set", "SET statement_timeout = '5s'"),
];

fn main() {
    let (catalog, search_path) = (catalog(), SearchPath::of(["public"]));
    let session = Session { catalog: &catalog, search_path: &search_path, search_path_id: 1 };
    let context = Context { catalog: &catalog, search_path: &search_path, hint: None };
    let scope = Scope { epoch: 1, search_path: 1 };
    println!("{:20}  bytes      fold  per byte       hit      miss  of which parsing", "");
    for (name, sql) in STATEMENTS {
        let bytes = sql.as_bytes();
        let mut folder = Folder::new(5);
        let fold = best(|| folder.fold(black_box(bytes), scope));
        let mut classifier = Classifier::new(5);
        classifier.classify(bytes, session);
        assert_eq!(classifier.classify(bytes, session).source, Source::Cache);
        let hit = best(|| classifier.classify(black_box(bytes), session));
        let miss = fold + best(|| classify(black_box(bytes), context));
        let parse = best(|| pg_raw_parse::parse(black_box(sql)));
        let (length, per_byte) = (bytes.len(), fold / bytes.len() as f64);
        println!("{name:20} {length:6} {fold:9.1} {per_byte:9.2} {hit:9.1} {miss:9.0} {parse:17.0}");
    }
}

/// Nanoseconds of one call, in the best of the rounds.
fn best<T>(mut call: impl FnMut() -> T) -> f64 {
    let mut best = f64::INFINITY;
    for _ in 0..ROUNDS {
        let start = Instant::now();
        for _ in 0..CALLS {
            black_box(call());
        }
        best = best.min(start.elapsed().as_secs_f64() * 1e9 / CALLS as f64);
    }
    best
}

fn catalog() -> Catalog {
    let mut builder = Builder::default();
    let mut row = |query, columns: &[&str]| builder.row(query, columns).expect("a row of the query");
    for (at, name) in ["count", "sum", "lower", "now"].iter().enumerate() {
        row(Query::Functions, &[&at.to_string(), "pg_catalog", name, "s", "", "false"]);
    }
    let relations = ["pgbench_accounts", "users", "customers", "orders", "queue", "done"];
    for (at, name) in relations.iter().enumerate() {
        row(Query::Relations, &[&(100 + at).to_string(), "public", name, "r"]);
    }
    for (at, name) in ["=", ">", "<"].iter().enumerate() {
        row(Query::Operators, &[&(200 + at).to_string(), "pg_catalog", name]);
    }
    builder.finish(1)
}
