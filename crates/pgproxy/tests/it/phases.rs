//! The connection to PostgreSQL is cut at every single message of what a client does: whoever sent that one and whatever
//! it was, the client sees no error, and everything it did is there once.

use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use pgproxy::Upstream;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::watch;
use tokio_postgres::Client;
use tokio_util::sync::CancellationToken;

use crate::cluster::Cluster;
use crate::proxy::{self, Proxy, value};

/// When the connection is cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Cut {
    /// The message is lost.
    Before,
    /// The message arrives as the last.
    Behind,
}

/// Between the proxy and PostgreSQL. Counts the messages of the proxies, and the answers of the servers, of all connections.
///
/// It does what the end of a server does. That has done nothing beyond what it has said: what is in a Unix socket arrives.
/// The servers here live on behind the cut, so they get each message only when what was asked for before is answered. And
/// a server says what it has to say at once, when it is asked for that: so its answers are lost as a whole, or not.
struct Relay {
    path: PathBuf,
    plan: Arc<Mutex<Plan>>,
}

struct Plan {
    passed: usize,
    cut_at: usize,
    cut: Cut,
    /// Of the connections that there are.
    connections: CancellationToken,
}

impl Relay {
    fn start(cluster: &Cluster) -> Relay {
        let path = cluster.socket().with_file_name("relay");
        let plan =
            Plan { passed: 0, cut_at: usize::MAX, cut: Cut::Before, connections: CancellationToken::new() };
        let plan = Arc::new(Mutex::new(plan));
        let listener = UnixListener::bind(&path).unwrap();
        tokio::spawn(accept(listener, cluster.socket(), plan.clone()));
        Relay { path, plan }
    }

    /// Closes every connection; of the messages that come from now on, one is cut at.
    fn begin(&self, cut_at: usize, cut: Cut) {
        let mut plan = locked(&self.plan);
        plan.connections.cancel();
        *plan = Plan { passed: 0, cut_at, cut, connections: CancellationToken::new() };
    }

    /// Whether the message that was to be cut at has come.
    fn has_cut(&self) -> bool {
        let plan = locked(&self.plan);
        plan.passed > plan.cut_at
    }
}

fn locked(plan: &Mutex<Plan>) -> MutexGuard<'_, Plan> {
    plan.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What one server was asked for and has not answered.
#[derive(Debug, Default, Clone, Copy)]
struct Owed {
    /// Executes, since the last that follows.
    completions: usize,
    /// Syncs and Queries.
    readies: usize,
    /// It answers nothing but a Sync.
    has_failed: bool,
    /// It was told to answer what it has, without a Sync.
    is_flushed: bool,
}

impl Owed {
    fn asked(&mut self, tag: u8) {
        match tag {
            b'E' => self.completions += 1,
            b'S' | b'Q' => self.readies += 1,
            b'H' => self.is_flushed = true,
            _ => {}
        }
    }

    fn answered(&mut self, tag: u8) {
        match tag {
            b'C' | b's' | b'I' => self.completions = self.completions.saturating_sub(1),
            b'E' => self.has_failed = true,
            b'Z' => *self = Owed { readies: self.readies - usize::from(self.readies > 0), ..Owed::default() },
            _ => {}
        }
    }

    fn is_settled(&self) -> bool {
        self.readies == 0 && (!self.is_flushed || self.completions == 0 || self.has_failed)
    }
}

struct Pipe {
    plan: Arc<Mutex<Plan>>,
    owed: watch::Sender<Owed>,
    open: CancellationToken,
}

async fn accept(listener: UnixListener, upstream: PathBuf, plan: Arc<Mutex<Plan>>) {
    while let Ok((proxy, _)) = listener.accept().await {
        let server = UnixStream::connect(&upstream).await.unwrap();
        let open = locked(&plan).connections.child_token();
        let pipe = Pipe { plan: plan.clone(), owed: watch::Sender::new(Owed::default()), open };
        tokio::spawn(async move {
            let (from_proxy, to_proxy) = proxy.into_split();
            let (from_server, to_server) = server.into_split();
            // Either end closes both.
            tokio::select! {
                _ = pipe.pass_on(from_proxy, to_server, Side::Proxy) => {}
                _ = pipe.pass_on(from_server, to_proxy, Side::Server) => {}
                () = pipe.open.cancelled() => {}
            }
        });
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Side {
    /// Its first message has no tag.
    Proxy,
    Server,
}

impl Pipe {
    async fn pass_on(
        &self,
        mut from: impl AsyncReadExt + Unpin,
        mut to: impl AsyncWriteExt + Unpin,
        side: Side,
    ) -> io::Result<()> {
        let mut tag_bytes = usize::from(side == Side::Server);
        let mut said = Vec::new();
        loop {
            let mut message = vec![0; tag_bytes + 4];
            from.read_exact(&mut message).await?;
            let length = u32::from_be_bytes(message[tag_bytes..].try_into().unwrap()) as usize;
            message.resize(tag_bytes + length, 0);
            from.read_exact(&mut message[tag_bytes + 4..]).await?;
            if side == Side::Proxy && tag_bytes == 1 {
                let _ = self.owed.subscribe().wait_for(Owed::is_settled).await;
                self.owed.send_modify(|owed| owed.asked(message[0]));
            }
            if side == Side::Server {
                self.owed.send_modify(|owed| owed.answered(message[0]));
            }
            tag_bytes = 1;
            said.append(&mut message);
            if side == Side::Server && !self.owed.borrow().is_settled() {
                continue;
            }
            let cut = {
                let mut plan = locked(&self.plan);
                let is_it = plan.passed == plan.cut_at;
                plan.passed += 1;
                is_it.then_some(plan.cut)
            };
            if cut != Some(Cut::Before) {
                to.write_all(&said).await?;
            }
            if cut.is_some() {
                self.open.cancel();
                return Ok(());
            }
            said.clear();
        }
    }
}

/// By each protocol, alone and in a block, with a read among them that must say the same again.
async fn work(client: &mut Client, run: i32) -> Result<(), tokio_postgres::Error> {
    client.simple_query(&format!("insert into done values ({run}, 1)")).await?;
    client.execute("insert into done values ($1, 2)", &[&run]).await?;
    let returned = client.query_one("insert into done values ($1, 3) returning n", &[&run]).await?;
    assert_eq!(returned.get::<_, i32>(0), 3);
    let block = client.transaction().await?;
    block.execute("insert into done values ($1, 4)", &[&run]).await?;
    let seen = block.query_one("select count(*) from done where run = $1", &[&run]).await?;
    assert_eq!(seen.get::<_, i64>(0), 4);
    block.simple_query(&format!("insert into done values ({run}, 5)")).await?;
    block.commit().await?;
    let seen = value(client, &format!("select count(*) from done where run = {run}")).await;
    assert_eq!(seen, "5");
    Ok(())
}

async fn at_every_message(cut: Cut) {
    let cluster = Cluster::create();
    let relay = Relay::start(&cluster);
    let database = proxy::database(&cluster.credentials(), Upstream::Unix(relay.path.clone()));
    let proxy: Proxy = proxy::start(database);
    let mut client = proxy.connect().await.unwrap();
    client.simple_query("create table done (run int, n int, primary key (run, n))").await.unwrap();
    let mut at = 0;
    loop {
        relay.begin(at, cut);
        let run = i32::try_from(at).unwrap();
        work(&mut client, run).await.unwrap_or_else(|error| panic!("{cut:?} message {at}: {error:?}"));
        let has_cut = relay.has_cut();
        let done =
            cluster.sql(&format!("select string_agg(n::text, ',' order by n) from done where run = {run}"));
        assert_eq!(done, "1,2,3,4,5", "{cut:?} message {at}");
        if !has_cut {
            break;
        }
        at += 1;
    }
    // To log in and nothing else would take fewer.
    assert!(at > 60, "{at} messages");
    let seen = proxy.db();
    assert!(seen.replays_total > 0 && seen.settled_commits_total > 0, "{seen:?}");
    assert_eq!(seen.unknown_outcomes_total, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_message_is_lost_with_the_connection_all_is_done_once_and_no_error_seen() {
    at_every_message(Cut::Before).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_message_is_the_last_of_its_connection_all_is_done_once_and_no_error_seen() {
    at_every_message(Cut::Behind).await;
}
