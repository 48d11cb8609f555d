//! Statements that nobody thought of: sqlsmith makes them from the schema and all of PostgreSQL's functions, and what we
//! call a read must not be refused by a standby.
//!
//! Takes some minutes and the program `sqlsmith` (on Debian a package of this name), so it is run by hand:
//!
//! ```text
//! cargo test --release -p sqlclass --test it sqlsmith -- --ignored --nocapture
//! ```

use std::process::Command;

use sqlclass::{Class, Context, SearchPath, classify};

use crate::servers::{Server, Servers};

const SCHEMA: &str = include_str!("schema.sql");
const SEEDS: std::ops::Range<u64> = 1..7;
const QUERIES_EACH: u64 = 5_000;

#[test]
#[ignore = "takes minutes and sqlsmith"]
fn a_standby_refuses_no_read_that_sqlsmith_makes() {
    let servers = Servers::start(SCHEMA);
    // It asks what can be changed, and nothing can answer for a wrapper without code.
    servers.ask(Server::Primary, "public", "DROP FOREIGN DATA WRAPPER nothing CASCADE").unwrap();
    let (catalog, search_path) = (servers.catalog(), SearchPath::of(["public"]));
    let context = Context { catalog: &catalog, search_path: &search_path, hint: None };
    let write = ["SELECT 1", "SELECT nextval('seq')"].map(str::to_owned);
    assert_eq!(servers.refusals(Server::Standby, &write).len(), 1, "a refusal is seen");
    let mut refused = Vec::new();
    for seed in SEEDS {
        let queries = made_queries(&servers, seed);
        let is_read = |query: &String| classify(query.as_bytes(), context).class == Class::Read;
        let reads: Vec<String> = queries.iter().filter(|query| is_read(query)).cloned().collect();
        eprintln!("seed {seed}: {} queries, {} reads", queries.len(), reads.len());
        assert!(!reads.is_empty());
        refused.extend(servers.refusals(Server::Standby, &reads));
    }
    assert!(refused.is_empty(), "{} refused:\n{}", refused.len(), refused.join("\n"));
}

/// One query a line.
fn made_queries(servers: &Servers, seed: u64) -> Vec<String> {
    let target = format!(
        "host={} port={} user=postgres dbname=postgres",
        servers.socket_folder(),
        Server::Primary.port()
    );
    let mut sqlsmith = Command::new("sqlsmith");
    sqlsmith.args(["--dry-run", &format!("--seed={seed}"), &format!("--max-queries={QUERIES_EACH}")]);
    let output = sqlsmith.arg(format!("--target={target}")).output();
    let output = output.expect("this needs sqlsmith: apt-get install sqlsmith");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let queries = text.split(";\n").map(|query| query.split_whitespace().collect::<Vec<_>>().join(" "));
    queries.filter(|query| !query.is_empty()).collect()
}
