//! The views of the proxy, in the database `switchback`.

use std::process::{Command, Stdio};
use std::time::Duration;

use pgproxy::{ConfigError, Database};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_postgres::{Client, NoTls, SimpleQueryMessage, SimpleQueryRow};

use crate::cluster::{Cluster, PASSWORD, bin};
use crate::proxy::{Proxy, config, of, sqlstate, start, value, within};
use crate::reads::{split, with_replica};

const ADMIN: &str = "looker:secret";

/// A cluster behind a proxy that may be looked at.
fn watched() -> (Cluster, Proxy) {
    let cluster = Cluster::create();
    let proxy = start(with_admin(&cluster, "secret"));
    (cluster, proxy)
}

fn with_admin(cluster: &Cluster, password: &str) -> Database {
    let path = cluster.credentials().with_file_name("admin.json");
    std::fs::write(&path, format!(r#"{{"role":"looker","password":"{password}"}}"#)).unwrap();
    Database { admin: Some(path), ..of(cluster) }
}

fn url(proxy: &Proxy, login: &str, database: &str) -> String {
    format!("postgres://{login}@{}/{database}", proxy.address)
}

async fn look(proxy: &Proxy) -> Client {
    proxy.connect_with(&url(proxy, ADMIN, "switchback")).await.unwrap()
}

async fn refused(proxy: &Proxy, login: &str, database: &str) -> String {
    let error = proxy.connect_with(&url(proxy, login, database)).await.err().unwrap();
    error.code().unwrap_or_else(|| panic!("{error:?}")).code().to_owned()
}

async fn rows(client: &Client, view: &str) -> Vec<SimpleQueryRow> {
    let messages = client.simple_query(view).await.unwrap();
    let row = |message| match message {
        SimpleQueryMessage::Row(row) => Some(row),
        _ => None,
    };
    messages.into_iter().filter_map(row).collect()
}

/// Some columns of the only row.
async fn only(client: &Client, view: &str, columns: &[&str]) -> Vec<String> {
    let rows = rows(client, view).await;
    assert_eq!(rows.len(), 1, "{view}");
    columns.iter().map(|column| rows[0].get(*column).unwrap_or("NULL").to_owned()).collect()
}

#[tokio::test]
async fn the_views_say_who_is_there_and_what_serves_them() {
    let (_cluster, proxy) = watched();
    let admin = look(&proxy).await;
    let client = proxy.connect_with(&format!("{}?application_name=shop", proxy.url())).await.unwrap();
    client.simple_query("begin").await.unwrap();
    let pid = value(&client, "select pg_backend_pid()").await;

    let columns =
        ["database", "user", "cl_active", "cl_waiting", "sv_active", "sv_idle", "maxwait", "pool_mode"];
    assert_eq!(
        only(&admin, "SHOW POOLS", &columns).await,
        ["db", "app", "1", "0", "1", "0", "0", "transaction"]
    );
    let columns = ["type", "user", "state", "addr", "link", "application_name", "tls"];
    assert_eq!(
        only(&admin, "SHOW CLIENTS", &columns).await,
        ["C", "app", "active", "127.0.0.1", &pid, "shop", ""]
    );
    let columns = ["type", "user", "database", "state", "port", "remote_pid", "node"];
    assert_eq!(
        only(&admin, "show servers;", &columns).await,
        ["S", "app", "app", "active", "5432", &pid, "db.1"]
    );
    let columns = ["name", "port", "database", "force_user", "current_connections", "node", "role", "zone"];
    assert_eq!(
        only(&admin, "SHOW DATABASES", &columns).await,
        ["db", "5432", "app", "app", "1", "db.1", "primary", "NULL"]
    );

    client.simple_query("commit").await.unwrap();
    proxy.until(|db| db.servers_idle == 1).await;
    assert_eq!(only(&admin, "SHOW CLIENTS", &["state", "link"]).await, ["idle", "NULL"]);
    assert_eq!(only(&admin, "SHOW SERVERS", &["state", "link", "remote_pid"]).await, ["idle", "NULL", &pid]);
    let queries = proxy.db().requests_total.to_string();
    assert_eq!(only(&admin, "SHOW STATS", &["database", "total_query_count"]).await, ["db", &queries]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_read_replica_has_a_row_of_its_own() {
    let (primary, replica, proxy) = split().await;
    let before = proxy.handle.status().databases["db"].clone();
    let database =
        Database { admin: with_admin(&primary, "secret").admin, ..with_replica(&primary, &replica) };
    proxy.handle.configure(config(2, database)).unwrap();
    let admin = look(&proxy).await;
    let column = async |view: &str, column: &str| -> Vec<String> {
        rows(&admin, view).await.iter().map(|row| row.get(column).unwrap_or("NULL").to_owned()).collect()
    };
    assert_eq!(column("SHOW POOLS", "node").await, ["db.1", "db.2"]);
    assert_eq!(column("SHOW DATABASES", "role").await, ["primary", "read_replica"]);
    assert!(before.nodes["db.2"].servers_idle > 0, "{before:?}");
    assert!(column("SHOW SERVERS", "node").await.contains(&"db.2".to_owned()));
}

#[tokio::test]
async fn a_client_that_waits_is_seen_to_wait_and_for_how_long() {
    let cluster = Cluster::create();
    let proxy = start(Database { pool_size: 1, ..with_admin(&cluster, "secret") });
    let (holder, waiter, admin) =
        (proxy.connect().await.unwrap(), proxy.connect().await.unwrap(), look(&proxy).await);
    holder.simple_query("begin").await.unwrap();
    let waiting = tokio::spawn(async move { value(&waiter, "select 1").await });
    proxy.until(|db| db.waiting == 1).await;
    let states: Vec<String> =
        rows(&admin, "SHOW CLIENTS").await.iter().map(|row| row.get("state").unwrap().to_owned()).collect();
    assert_eq!(states, ["active", "waiting"]);
    let wait = async |view: &str, column: &str| {
        let rows = rows(&admin, view).await;
        rows.iter().map(|row| row.get(column).unwrap().parse::<u64>().unwrap()).max().unwrap()
    };
    within("both views show the wait", async {
        while wait("SHOW POOLS", "maxwait_us").await < 1_000 || wait("SHOW CLIENTS", "wait_us").await < 1_000
        {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    })
    .await;
    holder.simple_query("rollback").await.unwrap();
    assert_eq!(waiting.await.unwrap(), "1");
}

#[tokio::test]
async fn without_a_login_for_it_there_is_no_such_database() {
    let cluster = Cluster::create();
    let proxy = start(of(&cluster));
    let app = format!("app:{}", PASSWORD.replace(' ', "%20"));
    assert_eq!(refused(&proxy, &app, "switchback").await, "3D000");
    assert_eq!(refused(&proxy, ADMIN, "switchback").await, "28P01");
}

#[tokio::test]
async fn each_of_the_two_logins_opens_its_own_door_alone() {
    let (_cluster, proxy) = watched();
    let app = format!("app:{}", PASSWORD.replace(' ', "%20"));
    assert_eq!(refused(&proxy, &app, "switchback").await, "28P01");
    assert_eq!(refused(&proxy, ADMIN, "app").await, "28P01");
    assert_eq!(refused(&proxy, "looker:wrong", "switchback").await, "28P01");
    assert_eq!(proxy.db().refused_login_total, 3);
}

#[tokio::test]
async fn one_can_look_when_clients_are_too_many_and_not_many_can() {
    let cluster = Cluster::create();
    let proxy = start(Database { max_clients: 1, ..with_admin(&cluster, "secret") });
    let _client = proxy.connect().await.unwrap();
    let mut admins = Vec::new();
    for _ in 0..8 {
        admins.push(look(&proxy).await);
    }
    assert_eq!(only(&admins[7], "SHOW POOLS", &["cl_active"]).await, ["1"]);
    assert_eq!(refused(&proxy, ADMIN, "switchback").await, "53300");
    drop(admins);
    within("there is a free place", async {
        while proxy.connect_with(&url(&proxy, ADMIN, "switchback")).await.is_err() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    })
    .await;
}

/// Whoever has no password could keep the operator out.
#[tokio::test]
async fn those_who_never_log_in_keep_nobody_from_looking() {
    let (_cluster, proxy) = watched();
    let parameters = b"user\0looker\0database\0switchback\0\0";
    let mut startup = (8 + parameters.len() as u32).to_be_bytes().to_vec();
    startup.extend(196_608_u32.to_be_bytes());
    startup.extend(parameters);
    let mut silent = Vec::new();
    for _ in 0..8 {
        let mut client = TcpStream::connect(proxy.address).await.unwrap();
        client.write_all(&startup).await.unwrap();
        assert_eq!(client.read_u8().await.unwrap(), b'R', "it is asked for the password");
        silent.push(client);
    }
    look(&proxy).await;
}

#[tokio::test]
async fn nothing_but_the_views_is_understood_and_the_session_goes_on() {
    let (_cluster, proxy) = watched();
    let admin = look(&proxy).await;
    for query in ["select 1", "show", "show pools clients", "show everything", "begin; show pools"] {
        assert_eq!(sqlstate(&admin, query).await, "0A000", "{query}");
    }
    let extended = admin.query("show pools", &[]).await.err().unwrap();
    assert_eq!(extended.code().unwrap().code(), "0A000");
    assert!(rows(&admin, " ; ").await.is_empty());
    let commands = rows(&admin, "SHOW HELP").await;
    assert_eq!(commands.len(), 7);
    for command in commands {
        rows(&admin, command.get("command").unwrap()).await;
    }
    let long = format!("show {}", "x".repeat(2_000));
    assert_eq!(sqlstate(&admin, &long).await, "08P01");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn psql_shows_the_views() {
    let (_cluster, proxy) = watched();
    let mut psql = Command::new(bin().join("psql"));
    psql.args(["-XAc", "SHOW VERSION", &url(&proxy, ADMIN, "switchback")]).stdin(Stdio::null());
    let run = tokio::task::spawn_blocking(move || psql.output().unwrap());
    let output = run.await.unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(said.starts_with("version\nswitchback pgproxy ") && said.ends_with("(1 row)\n"), "{said}");
}

#[tokio::test]
async fn who_came_in_by_a_login_that_has_changed_must_leave() {
    let (cluster, proxy) = watched();
    let admin = look(&proxy).await;
    proxy.handle.configure(config(2, with_admin(&cluster, "secret"))).unwrap();
    assert_eq!(only(&admin, "SHOW POOLS", &["cl_active"]).await, ["0"]);
    proxy.handle.configure(config(3, with_admin(&cluster, "another"))).unwrap();
    assert_eq!(sqlstate(&admin, "SHOW POOLS").await, "57P01");
    proxy.handle.configure(config(4, of(&cluster))).unwrap();
    assert_eq!(refused(&proxy, "looker:another", "switchback").await, "28P01");
}

#[tokio::test]
async fn an_app_whose_own_database_has_the_name_cannot_be_shut_out_of_it() {
    let cluster = Cluster::create();
    let proxy = start(of(&cluster));
    let credentials = std::fs::read_to_string(cluster.credentials()).unwrap();
    let renamed = credentials.replace(r#""database":"app""#, r#""database":"switchback""#);
    std::fs::write(cluster.credentials(), renamed).unwrap();
    let refused = proxy.handle.configure(config(2, with_admin(&cluster, "secret"))).unwrap_err();
    assert!(matches!(refused, ConfigError::Admin { .. }), "{refused}");
}

/// Such a session cannot be moved, and before a planned change of primary one can see whom it will end.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_has_state_of_one_connection_is_shown_and_told_what_is_lost_with_it() {
    let mut cluster = Cluster::create();
    let proxy = start(with_admin(&cluster, "secret"));
    let admin = look(&proxy).await;
    let mut pinned = Vec::new();
    for sql in [
        "create temp table t (a int)",
        "listen news",
        "select pg_advisory_lock(1)",
        "prepare p as select 1",
        "declare c cursor with hold for select 1",
    ] {
        let (client, connection) = tokio_postgres::connect(&proxy.url(), NoTls).await.unwrap();
        let ended = tokio::spawn(connection);
        client.simple_query(sql).await.unwrap();
        pinned.push((sql, client, ended));
    }
    let free = proxy.connect().await.unwrap();
    free.simple_query("select 1").await.unwrap();
    let shown = rows(&admin, "SHOW CLIENTS").await;
    let of_those = shown.iter().filter(|row| row.get("pinned") == Some("pinned")).count();
    assert_eq!((shown.len(), of_those), (6, 5));
    let mut metrics = String::new();
    proxy.handle.metrics(&mut metrics);
    assert!(
        metrics.contains("switchback_pgproxy_clients_pinned{database=\"db\",user=\"app\"} 5\n"),
        "{metrics}"
    );

    cluster.stop();
    cluster.start();
    for (sql, client, ended) in pinned {
        let error = ended.await.unwrap().unwrap_err();
        let said = error.as_db_error().unwrap_or_else(|| panic!("{sql}: {error:?}"));
        assert_eq!(said.code().code(), "57P01", "{sql}");
        assert!(said.message().contains("with it what the session had set up"), "{sql}: {said:?}");
        assert!(said.hint().unwrap().contains("LISTEN"), "{sql}: {said:?}");
        drop(client);
    }
    assert_eq!(value(&free, "select 2").await, "2", "who has no such state goes on");
    assert_eq!(only(&admin, "SHOW STATS", &["total_pinned_lost"]).await, ["5"]);
    proxy.until(|db| db.pinned == 0 && db.pinned_lost_total == 5).await;
}
