//! Statements that nobody thought of, through the proxy: whatever they do, what is asked next is answered with its own answer.
//!
//! A short run is a test like any other, and needs the program `sqlsmith` (on Debian a package of this name). `cargo xtask
//! sqlsmith` makes longer ones.

use std::process::{Command, Stdio};

use tokio_postgres::{Client, Error};

use crate::cluster::PASSWORD;
use crate::proxy::{Proxy, running, value};

/// Unless the environment says otherwise.
const SEED: u64 = 1;
const QUERIES: u64 = 500;
/// What a statement may do to its own connection, here and at PostgreSQL alike: end it.
const ENDED: &str = "57P01";

const SCHEMA: &str = "\
    create table author (id serial primary key, name text not null, born date, tags text[], data jsonb);
    create table book (id bigserial primary key, author int references author, title varchar(80), price numeric(10, 2),
        printed timestamptz default now());
    create view cheap as select book.*, author.name from book join author on author.id = book.author where price < 10;
    insert into author (name, born, tags, data)
        select 'author ' || n, date '1900-01-01' + n, array['a', 'b'], jsonb_build_object('n', n)
        from generate_series(1, 50) n;
    insert into book (author, title, price) select 1 + n % 50, 'book ' || n, n / 7.0 from generate_series(1, 200) n";

#[derive(Debug, Default)]
struct Counts {
    succeeded: usize,
    failed: usize,
    ended: usize,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_sqlsmith_asks_the_next_question_gets_its_own_answer() {
    let (_cluster, proxy) = running();
    proxy.connect().await.unwrap().batch_execute(SCHEMA).await.unwrap();
    let (seed, queries) = (told("SQLSMITH_SEED", SEED), told("SQLSMITH_QUERIES", QUERIES));
    let queries = made_queries(&proxy, seed, queries).await;
    assert!(!queries.is_empty());

    let (simple, extended) =
        tokio::join!(ask_all(&proxy, &queries, Ask::Simple), ask_all(&proxy, &queries, Ask::Extended));
    eprintln!("seed {seed}: {} queries; simple protocol: {simple:?}; extended: {extended:?}", queries.len());
    // Something of both kinds was seen, so that neither is only believed to work.
    assert!(simple.succeeded > 0 && simple.failed > 0 && extended.succeeded > 0 && extended.failed > 0);
    proxy.until(|db| db.clients == 0 && db.servers == db.servers_idle).await;
    assert_eq!(proxy.db().unknown_outcomes_total, 0);
}

#[derive(Clone, Copy)]
enum Ask {
    Simple,
    Extended,
}

async fn ask_all(proxy: &Proxy, queries: &[String], how: Ask) -> Counts {
    let mut counts = Counts::default();
    let mut client = begin(proxy).await;
    for (at, query) in queries.iter().enumerate() {
        match ask(&client, query, how).await {
            Ok(()) => counts.succeeded += 1,
            Err(error) => match error.code().map(|code| code.code()) {
                Some(ENDED) => {
                    counts.ended += 1;
                    client = begin(proxy).await;
                }
                // A proxy that lost its place would say so by these, or by nothing.
                Some(code) if !code.starts_with("08") => counts.failed += 1,
                _ => panic!("{error:?}\n{query}"),
            },
        }
        assert_eq!(
            value(&client, &format!("select 'answer {at}'")).await,
            format!("answer {at}"),
            "after {query}"
        );
    }
    counts
}

async fn ask(client: &Client, query: &str, how: Ask) -> Result<(), Error> {
    match how {
        Ask::Simple => client.simple_query(query).await.map(drop),
        Ask::Extended => {
            let statement = client.prepare(query).await?;
            client.query(&statement, &[]).await.map(drop)
        }
    }
}

async fn begin(proxy: &Proxy) -> Client {
    let client = proxy.connect().await.unwrap();
    client.batch_execute("set statement_timeout to '1s'").await.unwrap();
    client
}

fn told(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |text| text.parse().expect(name))
}

/// It reads the catalog through the proxy, and makes its statements by that.
async fn made_queries(proxy: &Proxy, seed: u64, queries: u64) -> Vec<String> {
    let (host, port) = (proxy.address.ip(), proxy.address.port());
    let target = format!("host={host} port={port} user=app password='{PASSWORD}' dbname=app");
    let mut sqlsmith = Command::new("sqlsmith");
    sqlsmith.args(["--dry-run", &format!("--seed={seed}"), &format!("--max-queries={queries}")]);
    sqlsmith.arg(format!("--target={target}")).stdin(Stdio::null());
    let run = tokio::task::spawn_blocking(move || sqlsmith.output());
    let output = run.await.unwrap().expect("this needs sqlsmith: cargo xtask setup");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).unwrap();
    text.split(";\n").map(str::trim).filter(|query| !query.is_empty()).map(str::to_owned).collect()
}
