//! Reads on a replica under load, and what they cost. By hand, on a machine that does nothing else:
//! `cargo nextest run --release -p pgproxy --run-ignored only -E 'test(load::)' --no-capture`.

use std::net::TcpListener;
use std::os::unix::fs::chown;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use pgproxy::{Database, Node, Role, Upstream};

use crate::cluster::{Cluster, PASSWORD, bin, signal};
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

/// CPU of the proxy for each of pgbench's point selects: without replicas, with one, and PgBouncer's where it is installed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "measures"]
async fn what_a_read_costs() {
    let primary = Cluster::create();
    let replica = primary.standby();
    let (without, with) = (start(of(&primary)), start(with_replica(&primary, &replica)));
    pgbench(&["-i", "-q", &without.url()]).await;
    let client = with.connect().await.unwrap();
    while reads(&with) == 0 {
        value(&client, "select abalance from pgbench_accounts where aid = 1").await;
    }
    let bouncer = Bouncer::start(&primary);
    for round in 1..=3 {
        for mode in ["simple", "extended", "prepared"] {
            for (name, url, pid) in [
                ("without replicas", Some(without.url()), std::process::id()),
                ("with a replica", Some(with.url()), std::process::id()),
                ("PgBouncer", bouncer.as_ref().map(Bouncer::url), bouncer.as_ref().map_or(0, Bouncer::pid)),
            ] {
                // It knows no prepared statements before 1.21.
                let Some(url) = url.filter(|_| name != "PgBouncer" || mode != "prepared") else { continue };
                let (before, there) = (cpu(pid), reads(&with));
                let report = pgbench(&["-S", "-n", "-c", "8", "-T", "3", "-M", mode, &url]).await;
                let used = cpu(pid) - before;
                let done = number(&report, "actually processed: ");
                println!(
                    "round {round}, {mode}, {name}: {:.1} µs of CPU, {:.0} tps, {} reads on the replica",
                    used.as_secs_f64() * 1e6 / done,
                    number(&report, "tps = "),
                    reads(&with) - there,
                );
            }
        }
    }
}

async fn pgbench(arguments: &[&str]) -> String {
    let mut command = Command::new(bin().join("pgbench"));
    command.args(arguments).stdin(Stdio::null());
    let output = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

fn number(report: &str, behind: &str) -> f64 {
    let (_, rest) = report.split_once(behind).unwrap();
    rest.split(|c: char| !(c.is_ascii_digit() || c == '.')).next().unwrap().parse().unwrap()
}

/// Of all its threads.
fn cpu(pid: u32) -> Duration {
    let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).unwrap().flatten();
    let of_task = |task: std::fs::DirEntry| {
        let text = std::fs::read_to_string(task.path().join("schedstat")).ok()?;
        text.split(' ').next()?.parse::<u64>().ok()
    };
    Duration::from_nanos(tasks.filter_map(of_task).sum::<u64>())
}

struct Bouncer {
    process: Child,
    port: u16,
    _folder: tempfile::TempDir,
}

impl Bouncer {
    fn start(primary: &Cluster) -> Option<Bouncer> {
        let program = Path::new("/usr/sbin/pgbouncer");
        if !program.exists() {
            return None;
        }
        let folder = tempfile::tempdir().unwrap();
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let users = folder.path().join("users.txt");
        std::fs::write(&users, format!("\"app\" \"{PASSWORD}\"\n")).unwrap();
        let ini = folder.path().join("pgbouncer.ini");
        let socket = primary.socket();
        let text = format!(
            "[databases]\napp = host={} port=5432 dbname=app user=app password='{PASSWORD}'\n[pgbouncer]\n\
             listen_addr = 127.0.0.1\nlisten_port = {port}\nunix_socket_dir =\nauth_type = scram-sha-256\n\
             auth_file = {}\npool_mode = transaction\ndefault_pool_size = 20\n",
            socket.parent().unwrap().display(),
            users.display(),
        );
        std::fs::write(&ini, text).unwrap();
        let owner = std::os::unix::fs::MetadataExt::uid(&socket.parent().unwrap().metadata().unwrap());
        for path in [folder.path(), &users, &ini] {
            chown(path, Some(owner), None).unwrap();
        }
        let mut command = Command::new(program);
        std::os::unix::process::CommandExt::uid(&mut command, owner);
        let process = command.arg(&ini).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        while std::net::TcpStream::connect(("127.0.0.1", port)).is_err() {
            std::thread::sleep(Duration::from_millis(10));
        }
        Some(Bouncer { process, port, _folder: folder })
    }

    fn url(&self) -> String {
        format!("postgres://app:{}@127.0.0.1:{}/app", PASSWORD.replace(' ', "%20"), self.port)
    }

    fn pid(&self) -> u32 {
        self.process.id()
    }
}

impl Drop for Bouncer {
    fn drop(&mut self) {
        signal("-KILL", self.process.id());
        // Reaped, whatever it says.
        let _ = self.process.wait();
    }
}
