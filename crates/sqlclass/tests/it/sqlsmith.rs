//! Statements that nobody thought of: sqlsmith makes them from the schema and all of PostgreSQL's functions, and what we
//! call a read must not be refused by a standby.
//!
//! A short run is a test like any other, and needs the program `sqlsmith` (on Debian a package of this name). `cargo xtask
//! sqlsmith` makes longer ones. Each asks something else, and says by which seed: `SQLSMITH_SEED` asks the same again.

use std::process::Command;
use std::time::UNIX_EPOCH;

use sqlclass::{Class, Context, SearchPath, classify};

use crate::servers::{Server, Servers};

const SCHEMA: &str = include_str!("schema.sql");
/// Unless the environment says otherwise.
const QUERIES: u64 = 500;

#[test]
fn a_standby_refuses_no_read_that_sqlsmith_makes() {
    let servers = Servers::start(SCHEMA);
    // It asks what can be changed, and nothing can answer for a wrapper without code.
    servers.ask(Server::Primary, "public", "DROP FOREIGN DATA WRAPPER nothing CASCADE").unwrap();
    let (catalog, search_path) = (servers.catalog(), SearchPath::of(["public"]));
    let context = Context { catalog: &catalog, search_path: &search_path, hint: None };
    let write = ["SELECT 1", "SELECT nextval('seq')"].map(str::to_owned);
    assert_eq!(servers.refusals(Server::Standby, &write).len(), 1, "a refusal is seen");
    let after = ["SELECT pg_terminate_backend(pg_backend_pid())", "SELECT nextval('seq')"].map(str::to_owned);
    let seen = servers.refusals(Server::Standby, &after);
    assert_eq!(seen.len(), 1, "also after a query that ended its session: {seen:?}");
    let seed = told("SQLSMITH_SEED", any_seed());
    eprintln!("SQLSMITH_SEED={seed}");
    let queries = made_queries(&servers, seed, told("SQLSMITH_QUERIES", QUERIES));
    let is_read = |query: &String| classify(query.as_bytes(), context).class == Class::Read;
    let reads: Vec<String> = queries.iter().filter(|query| is_read(query)).cloned().collect();
    assert!(!reads.is_empty());
    let refused = servers.refusals(Server::Standby, &reads);
    eprintln!(
        "{} queries, {} of them reads, {} of these refused by the standby",
        queries.len(),
        reads.len(),
        refused.len()
    );
    assert!(refused.is_empty(), "{} refused:\n{}", refused.len(), refused.join("\n"));
}

fn told(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |text| text.parse().expect(name))
}

fn any_seed() -> u64 {
    u64::from(UNIX_EPOCH.elapsed().unwrap().subsec_micros())
}

/// One query a line.
fn made_queries(servers: &Servers, seed: u64, queries: u64) -> Vec<String> {
    let target = format!(
        "host={} port={} user=postgres dbname=postgres",
        servers.socket_folder(),
        Server::Primary.port()
    );
    let mut sqlsmith = Command::new("sqlsmith");
    sqlsmith.args(["--dry-run", &format!("--seed={seed}"), &format!("--max-queries={queries}")]);
    let output = sqlsmith.arg(format!("--target={target}")).output();
    let output = output.expect("this needs sqlsmith: cargo xtask setup");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let queries = text.split(";\n").map(|query| query.split_whitespace().collect::<Vec<_>>().join(" "));
    queries.filter(|query| !query.is_empty()).collect()
}
