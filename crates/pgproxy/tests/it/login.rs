//! Who gets in, and what those are told who do not.

use std::time::Duration;

use pgproxy::{Database, Tls};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_postgres::error::SqlState;

use crate::cluster::{Cluster, PASSWORD, bin};
use crate::proxy::{Proxy, of, running, start, value, within};
use crate::wire::Raw;

#[tokio::test]
async fn nobody_can_tell_an_unknown_user_from_a_wrong_password() {
    let (_cluster, proxy) = running();
    let mut told = Vec::new();
    for (user, password) in
        [("app", "wrong"), ("nobody", "wrong"), ("postgres", "unused"), ("nobody", PASSWORD)]
    {
        let url = format!(
            "host=127.0.0.1 port={} user={user} password='{password}' dbname=app",
            proxy.address.port()
        );
        let refused = proxy.connect_with(&url).await.err().unwrap();
        let refused = refused.as_db_error().unwrap();
        assert_eq!(refused.code(), &SqlState::INVALID_PASSWORD);
        told.push(refused.message().replace(user, "USER"));
    }
    assert!(told.iter().all(|message| *message == told[0]), "{told:?}");
    assert_eq!(proxy.db().refused_login_total, 4);
}

#[tokio::test]
async fn an_unknown_database_is_refused_after_the_password_only() {
    let (_cluster, proxy) = running();
    let connect = async |password: &str| {
        let url = format!(
            "host=127.0.0.1 port={} user=app password='{password}' dbname=other",
            proxy.address.port()
        );
        proxy.connect_with(&url).await.err().unwrap().code().unwrap().code().to_owned()
    };
    assert_eq!(connect(PASSWORD).await, "3D000");
    assert_eq!(connect("wrong").await, "28P01");
}

#[tokio::test]
async fn settings_of_the_startup_packet_are_in_force() {
    let (_cluster, proxy) = running();
    let url = format!(
        "{}?application_name=shop&options=-c%20statement_timeout%3D1234%20-c%20search_path%3Da,b",
        proxy.url()
    );
    let client = proxy.connect_with(&url).await.unwrap();
    let plain = proxy.connect().await.unwrap();
    for _ in 0..2 {
        assert_eq!(value(&client, "show application_name").await, "shop");
        assert_eq!(value(&client, "show statement_timeout").await, "1234ms");
        assert_eq!(value(&client, "show search_path").await, "a,b");
        assert_eq!(value(&plain, "show application_name").await, "");
        assert_eq!(value(&plain, "show statement_timeout").await, "0");
    }
    let broken = proxy.connect_with(&format!("{}?options=-c%20work_mem%3Dmuch", proxy.url())).await.unwrap();
    let refused = broken.simple_query("select 1").await.err().unwrap();
    assert_eq!(refused.code().unwrap().code(), "22023");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_asks_for_tls_gets_it_where_there_is_a_certificate() {
    let cluster = Cluster::create();
    let folder = tempfile::TempDir::new().unwrap();
    let issued = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    let tls = Tls {
        certificate_chain: folder.path().join("chain.pem"),
        private_key: folder.path().join("key.pem"),
    };
    std::fs::write(&tls.certificate_chain, issued.cert.pem()).unwrap();
    std::fs::write(&tls.private_key, issued.signing_key.serialize_pem()).unwrap();
    let proxy = start(pgproxy::Database { tls: Some(tls), ..of(&cluster) });
    for (mode, succeeds) in [("require", true), ("disable", true)] {
        let url = format!("{}?sslmode={mode}", proxy.url());
        let mut psql = std::process::Command::new(bin().join("psql"));
        psql.args(["-XAtc", "select repeat('x', 200000)", &url]);
        let output = tokio::task::spawn_blocking(move || psql.output().unwrap()).await.unwrap();
        assert_eq!(output.status.success(), succeeds, "{}", String::from_utf8_lossy(&output.stderr));
        assert_eq!(output.stdout.len(), 200_001);
    }
}

/// It is asked for its password, and says nothing more.
async fn silent(proxy: &Proxy) -> TcpStream {
    const STARTUP: &[u8] = b"\0\0\0\x12\0\x03\0\0user\0app\0\0";
    let mut client = TcpStream::connect(proxy.address).await.unwrap();
    client.write_all(STARTUP).await.unwrap();
    assert_eq!(client.read_u8().await.unwrap(), b'R');
    client
}

/// A port that can be reached by many must not be closed to the app by any of them.
#[tokio::test]
async fn those_who_never_prove_a_password_keep_no_client_out() {
    let cluster = Cluster::create();
    let proxy = start(Database { max_clients: 2, ..of(&cluster) });
    let mut idle = Vec::new();
    for _ in 0..3 {
        idle.push(silent(&proxy).await);
    }
    assert_eq!(proxy.db().clients, 0);
    let (one, _other) = (proxy.connect().await.unwrap(), proxy.connect().await.unwrap());
    assert_eq!(value(&one, "select 1").await, "1");
    assert_eq!(proxy.connect().await.err().unwrap().code().unwrap().code(), "53300");
}

#[tokio::test]
async fn of_too_many_logins_under_way_the_one_that_began_first_is_closed() {
    // As many as there may be clients, and 128 more.
    const AT_ONCE: usize = 1 + 128;
    let cluster = Cluster::create();
    let proxy = start(Database { max_clients: 1, ..of(&cluster) });
    let mut first = silent(&proxy).await;
    let mut others = Vec::new();
    for _ in 1..AT_ONCE {
        others.push(silent(&proxy).await);
    }
    assert_eq!(proxy.db().refused_full_total, 0);
    let client = proxy.connect().await.unwrap();
    assert_eq!(value(&client, "select 1").await, "1");
    assert_eq!(proxy.db().refused_full_total, 1);
    let mut asked = Vec::new();
    within("the first is closed", first.read_to_end(&mut asked)).await.unwrap();
    assert!(others[0].try_read(&mut [0; 100]).is_ok_and(|bytes| bytes > 0), "the second is not");
}

#[tokio::test]
async fn clients_that_speak_something_else_are_closed_and_counted() {
    let (_cluster, proxy) = running();
    let mut client = TcpStream::connect(proxy.address).await.unwrap();
    client.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
    let mut answer = Vec::new();
    // Closed with bytes unread, which the kernel may report as a reset.
    let _ = client.read_to_end(&mut answer).await;
    assert!(answer.is_empty());
    proxy.until(|db| db.refused_protocol_total == 1).await;

    // A TCP health check is not worth counting as anything wrong.
    drop(TcpStream::connect(proxy.address).await.unwrap());
    proxy.until(|db| db.connections_total == 2).await;
    assert_eq!(proxy.db().refused_protocol_total, 1);
}

#[tokio::test]
async fn a_client_can_come_in_while_there_is_no_primary() {
    let (mut cluster, proxy) = running();
    drop(proxy.connect().await.unwrap());
    cluster.stop();
    let client = tokio::time::timeout(Duration::from_secs(5), proxy.connect()).await.unwrap().unwrap();
    let query = tokio::spawn(async move { value(&client, "select 7").await });
    proxy.until(|db| db.waiting == 1).await;
    cluster.start();
    assert_eq!(query.await.unwrap(), "7");
}

#[tokio::test]
async fn a_client_that_comes_in_is_told_nothing_that_others_have_set() {
    let told = |raw: Raw| -> Vec<_> {
        let (_, told) = raw.into_parts();
        let mut told: Vec<_> =
            told.into_iter().filter(|(tag, _)| *tag == b'S').map(|(_, body)| body).collect();
        told.sort_unstable();
        told
    };
    let cluster = Cluster::create();
    let proxy = start(Database { pool_size: 1, ..of(&cluster) });
    let (one, other) = (proxy.connect().await.unwrap(), proxy.connect().await.unwrap());
    one.simple_query("set timezone to 'Asia/Tokyo'").await.unwrap();
    // The connection has been given to another, and then the settings of the one again.
    assert_ne!(value(&other, "show timezone").await, "Asia/Tokyo");
    assert_eq!(value(&one, "show timezone").await, "Asia/Tokyo");
    assert_eq!(told(Raw::connect(&proxy).await), told(Raw::connect_directly(&cluster).await));
}
