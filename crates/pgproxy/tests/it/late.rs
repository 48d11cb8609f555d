//! Clients that read their answers late, or never.

use std::time::Duration;

use crate::proxy::{Proxy, config, of, within};
use crate::reads::{REPLICA, reads, split, split_in_two, split_with, until_reads_land};
use crate::wire::Raw;

/// Replies that were said are not taken back by what follows, and none fills the memory.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_reads_late_gets_every_answer_of_what_it_has_pipelined() {
    let (_primary, _replica, proxy) = split_in_two().await;
    let mut client = Raw::connect(&proxy).await;
    let long = b"select repeat('x', 1000) from generate_series(1, 5000)\0";
    let before = reads(&proxy);
    for _ in 0..3 {
        client.say(b'Q', long).await;
        client.say(b'Q', b"select standby() from t where id = 1\0").await;
    }
    // Far more than what the sockets take is on its way by now.
    proxy.until(|_| reads(&proxy) > before).await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    for _ in 0..3 {
        let rows = client.answer().await;
        assert_eq!(rows, format!("T{}CZI", "D".repeat(5_000)));
        assert_eq!(client.answer().await, "TDCZI");
    }
}

/// More than what the sockets take, in replies of which each is withheld as a whole.
const REQUESTS: usize = 400;

/// Requests of which the last wait for their client to take the answers to the first.
async fn requests_that_wait(proxy: &Proxy) -> Raw {
    let mut client = Raw::connect(proxy).await;
    let before = reads(proxy);
    client.say_again(b'Q', b"select repeat('x', 1000) from generate_series(1, 60)\0", REQUESTS).await;
    within("the rest of the requests waits", async {
        let mut last = before;
        while last == before || last != reads(proxy) {
            last = reads(proxy);
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        assert!(last - before < REQUESTS as u64, "the sockets take {last} answers");
    })
    .await;
    client
}

async fn are_answered(mut client: Raw) {
    for _ in 0..REQUESTS {
        let answer = within("the next answer", client.answer()).await;
        assert_eq!(answer, format!("T{}CZI", "D".repeat(60)));
    }
}

/// Its requests wait for it to take answers, and the replicas that they wait for may be gone when it does.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_reads_late_gets_every_answer_although_the_replicas_are_gone_by_then() {
    let (primary, _replica, proxy) = split().await;
    let client = requests_that_wait(&proxy).await;
    proxy.handle.configure(config(2, of(&primary))).unwrap();
    are_answered(client).await;
}

/// It is not gone because it says no more.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_says_no_more_and_reads_late_gets_every_answer() {
    let (_primary, _replica, proxy) = split().await;
    let mut client = requests_that_wait(&proxy).await;
    client.end().await;
    // The proxy has heard it by then.
    tokio::time::sleep(Duration::from_millis(300)).await;
    are_answered(client).await;
}

/// Nobody waits for the answer any more: neither the place nor the processor is kept busy for it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_read_on_a_replica_is_cancelled_when_its_client_resets_the_connection() {
    const LONG: &[u8] = b"/* switchback: replica */ select pg_sleep(600)\0";
    let (_primary, replica, proxy) = split_with(|database| database.pool_size = 1).await;
    let running = "select count(*) from pg_stat_activity where state = 'active' and query like '%pg_sleep(600)%' \
                   and pid <> pg_backend_pid()";
    let until_there_run = async |count: &str| {
        within("the read begins, or ends", async {
            while replica.sql(running) != count {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        })
        .await;
    };
    // By itself, and with a request behind it that is not looked at before it is answered.
    for pipelined in [0, 1] {
        let mut client = Raw::connect_abrupt(&proxy).await;
        client.say(b'Q', LONG).await;
        client.say_again(b'Q', b"select 1\0", pipelined).await;
        until_there_run("1").await;
        drop(client);
        until_there_run("0").await;
        proxy.until(|db| db.clients == 0 && db.nodes[REPLICA].servers == 0).await;
        until_reads_land(&proxy.connect().await.unwrap()).await;
    }
}
