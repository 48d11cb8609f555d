//! Reads on a replica under load. By hand, on a machine that does nothing else:
//! `cargo nextest run --release -p pgproxy --run-ignored only -E 'test(load::)' --no-capture`.

use pgproxy::{Database, Node, Role, Upstream};

use crate::cluster::Cluster;
use crate::proxy::{Proxy, of, start, value};

fn with_replica(primary: &Cluster, replica: &Cluster) -> Database {
    let mut database = of(primary);
    let upstream = Upstream::Unix(replica.socket());
    database.nodes.insert("db.2".to_owned(), Node { upstream, zone: None, role: Role::ReadReplica });
    database
}

fn reads(proxy: &Proxy) -> u64 {
    proxy.db().nodes.get("db.2").map_or(0, |node| node.statements_total["read"])
}

/// Pairs of a write and a read of what was written, on a replica that is as fast as it can, and on one that is late.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a minute of load"]
async fn no_own_write_is_missed_in_many_pairs() {
    const CLIENTS: i32 = 8;
    for (delay_ms, pairs) in [(0, 5_000), (5, 2_000), (200, 500)] {
        let primary = Cluster::create();
        let replica = primary.standby();
        replica.sql(&format!("alter system set recovery_min_apply_delay = '{delay_ms}ms'"));
        replica.sql("select pg_reload_conf()");
        let proxy = start(with_replica(&primary, &replica));
        let client = proxy.connect().await.unwrap();
        client.simple_query("create table t (id int primary key, a int)").await.unwrap();
        client.simple_query("insert into t select n, 0 from generate_series(1, 8) n").await.unwrap();
        while reads(&proxy) == 0 {
            value(&client, "select a from t").await;
        }
        let before = reads(&proxy);
        let began = std::time::Instant::now();
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
        println!(
            "apply delay {delay_ms} ms: {all} pairs in {:.1} s, {stale} stale, {:.1} % of reads on the replica, {} waited, {} too late",
            began.elapsed().as_secs_f64(),
            (reads(&proxy) - before) as f64 * 100.0 / all as f64,
            db.reads_waited_total,
            db.reads_too_late_total,
        );
        assert_eq!(stale, 0);
    }
}
