//! Reads on a replica under load. By hand, on a machine that does nothing else:
//! `cargo nextest run --release -p pgproxy --run-ignored only -E 'test(load::)' --no-capture`.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering::SeqCst};
use std::time::{Duration, Instant};

use pgproxy::{Database, Node, Role, Upstream};

use crate::cluster::Cluster;
use crate::proxy::{Proxy, of, start, value, within};

const NAMES: [&str; 2] = ["db.2", "db.3"];

fn with_replicas(primary: &Cluster, replicas: &[Cluster]) -> Database {
    let mut database = of(primary);
    for (name, replica) in NAMES.iter().zip(replicas) {
        let upstream = Upstream::Unix(replica.socket());
        let node = Node { upstream, zone: None, role: Role::ReadReplica };
        database.nodes.insert((*name).to_owned(), node);
    }
    database
}

/// On each of the replicas.
fn reads(proxy: &Proxy) -> [u64; 2] {
    let nodes = proxy.db().nodes;
    NAMES.map(|name| nodes.get(name).map_or(0, |node| node.statements_total["read"]))
}

/// Pairs of a write and a read of what was written, on a replica that is as fast as it can, and on one that is late.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "some minutes of load"]
async fn no_own_write_is_missed_in_a_million_pairs() {
    const CLIENTS: i32 = 8;
    // What a replica does not have within the time that a read waits for it is the primary's to show.
    for (delay_ms, pairs, least_percent) in [(0, 120_000, 90.0), (5, 4_500, 90.0), (200, 500, 0.0)] {
        let primary = Cluster::create();
        let replica = primary.standby();
        replica.sql(&format!("alter system set recovery_min_apply_delay = '{delay_ms}ms'"));
        replica.sql("select pg_reload_conf()");
        let proxy = start(with_replicas(&primary, std::slice::from_ref(&replica)));
        let client = proxy.connect().await.unwrap();
        client.simple_query("create table t (id int primary key, a int)").await.unwrap();
        client.simple_query("insert into t select n, 0 from generate_series(1, 8) n").await.unwrap();
        within("reads land on the replica", async {
            while reads(&proxy)[0] == 0 {
                value(&client, "select a from t").await;
            }
        })
        .await;
        let before = reads(&proxy)[0];
        let began = Instant::now();
        let mut clients = Vec::new();
        for id in 1..=CLIENTS {
            let client = proxy.connect().await.unwrap();
            clients.push(tokio::spawn(async move {
                let write = client.prepare("update t set a = $2 where id = $1").await.unwrap();
                let read = client.prepare("select a from t where id = $1").await.unwrap();
                let mut stale = 0;
                for a in 1..=pairs {
                    client.execute(&write, &[&id, &a]).await.unwrap();
                    stale += i32::from(client.query_one(&read, &[&id]).await.unwrap().get::<_, i32>(0) != a);
                }
                stale
            }));
        }
        let mut stale = 0;
        for client in clients {
            stale += client.await.unwrap();
        }
        let (all, db) = (u64::try_from(CLIENTS * pairs).unwrap(), proxy.db());
        let percent = (reads(&proxy)[0] - before) as f64 * 100.0 / all as f64;
        println!(
            "apply delay {delay_ms} ms: {all} pairs in {:.1} s, {stale} stale, {percent:.1} % of reads on the replica, {} waited, {} too late",
            began.elapsed().as_secs_f64(),
            db.reads_waited_total,
            db.reads_too_late_total,
        );
        assert_eq!(stale, 0);
        assert!(percent >= least_percent, "only {percent:.1} % of reads on the replica");
    }
}

/// What clients write, while others read.
#[derive(Debug, Clone, Copy)]
enum Writes {
    Nothing,
    Rows,
    /// And read what they have written.
    RowsAndReturnThem,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_is_shown_less_than_anybody_was_before() {
    read_and_write_for(Duration::from_secs(1)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a minute of load"]
async fn nobody_is_shown_less_than_anybody_was_before_for_longer() {
    read_and_write_for(Duration::from_secs(20)).await;
}

/// Clients that read over whatever connection, from two replicas: none is shown less than anybody was before.
async fn read_and_write_for(time: Duration) {
    const READERS: usize = 8;
    const WRITERS: i32 = 4;
    /// Of one writer.
    const BETWEEN_WRITES: Duration = Duration::from_millis(20);
    let primary = Cluster::create();
    let replicas = [primary.standby(), primary.standby()];
    let proxy = start(with_replicas(&primary, &replicas));
    let client = proxy.connect().await.unwrap();
    client.simple_query("create table t (id int primary key, a int)").await.unwrap();
    client.simple_query("insert into t select n, 0 from generate_series(1, 4) n").await.unwrap();
    within("reads land on both replicas", async {
        while reads(&proxy).contains(&0) {
            let others = [proxy.connect().await.unwrap(), proxy.connect().await.unwrap()];
            let read = "select count(*) from t, generate_series(1, 10000)";
            tokio::join!(value(&others[0], read), value(&others[1], read));
        }
    })
    .await;
    let mut last = 0;
    for writes in [Writes::Nothing, Writes::Rows, Writes::RowsAndReturnThem] {
        let stop = Arc::new(AtomicBool::new(false));
        // By row: what somebody was shown.
        let shown: Arc<[AtomicI32; WRITERS as usize]> = Arc::default();
        let (before, too_late) = (reads(&proxy), proxy.db().reads_too_late_total);
        let mut writers = Vec::new();
        for id in 1..=WRITERS {
            let (client, stop) = (proxy.connect().await.unwrap(), stop.clone());
            writers.push(tokio::spawn(async move {
                let mut a = last;
                let write = match writes {
                    Writes::Nothing => return a,
                    Writes::Rows => "update t set a = $2 where id = $1",
                    Writes::RowsAndReturnThem => "update t set a = $2 where id = $1 returning a",
                };
                let write = client.prepare(write).await.unwrap();
                while !stop.load(SeqCst) {
                    a += 1;
                    client.query(&write, &[&id, &a]).await.unwrap();
                    tokio::time::sleep(BETWEEN_WRITES).await;
                }
                a
            }));
        }
        let mut readers = Vec::new();
        for reader in 0..READERS {
            let (client, stop, shown) = (proxy.connect().await.unwrap(), stop.clone(), shown.clone());
            readers.push(tokio::spawn(async move {
                let read = client.prepare("select a from t where id = $1").await.unwrap();
                let (mut took, mut less) = (Vec::new(), 0);
                let mut row = reader;
                while !stop.load(SeqCst) {
                    row = (row + 1) % shown.len();
                    let before = shown[row].load(SeqCst);
                    let asked = Instant::now();
                    let id = i32::try_from(row + 1).unwrap();
                    let a: i32 = client.query_one(&read, &[&id]).await.unwrap().get(0);
                    took.push(asked.elapsed());
                    less += i32::from(a < before);
                    shown[row].fetch_max(a, SeqCst);
                }
                (took, less)
            }));
        }
        tokio::time::sleep(time).await;
        stop.store(true, SeqCst);
        let (mut took, mut less) = (Vec::new(), 0);
        for reader in readers {
            let (took_one, less_one) = reader.await.unwrap();
            took.extend(took_one);
            less += less_one;
        }
        for writer in writers {
            last = last.max(writer.await.unwrap());
        }
        took.sort();
        let on = reads(&proxy);
        let on = [on[0] - before[0], on[1] - before[1]];
        println!(
            "{writes:?}: {:.0} reads/s, median {:?}, 99 % {:?}, {less} taken back, {:.1} % + {:.1} % on the replicas, {} too late",
            took.len() as f64 / time.as_secs_f64(),
            took[took.len() / 2],
            took[took.len() * 99 / 100],
            on[0] as f64 * 100.0 / took.len() as f64,
            on[1] as f64 * 100.0 / took.len() as f64,
            proxy.db().reads_too_late_total - too_late,
        );
        assert_eq!(less, 0);
    }
}
