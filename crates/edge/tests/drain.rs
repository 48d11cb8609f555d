//! Ending, and handing over to a successor, without a client noticing more than `Connection: close`.

use std::collections::BTreeMap;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use edge::status::Phase;
use tokio::task::JoinHandle;

use crate::support::{Client, Front, Instance, client::Kind, endpoint, front, soon, upstream};

/// Begins a drain. What is returned ends with it.
async fn draining(front: &Front) -> JoinHandle<()> {
    let handle = front.handle.clone();
    let drained = tokio::spawn(async move { handle.drain(Duration::from_secs(60)).await });
    soon("the drain", async {
        while front.handle.status().phase == Phase::Serving {
            tokio::task::yield_now().await;
        }
    })
    .await;
    drained
}

#[tokio::test]
async fn an_idle_connection_gets_one_more_answer_and_then_its_end() {
    let instance = Instance::mirror().await;
    let front = Front::of(&instance);
    let mut client = front.client().await;
    assert_eq!(client.get("/before").await.field("connection"), None);
    let drained = draining(&front).await;
    let answer = client.get("/during").await;
    assert_eq!((answer.status(), answer.field("connection")), (200, Some("close")));
    assert!(client.is_closed().await);
    drop(client);
    soon("the end of the drain", drained).await.expect("no panic");
    assert_eq!(front.handle.status().phase, Phase::Stopped);
}

/// While its successor serves, instances come and go, and so do listeners.
#[tokio::test]
async fn an_edge_that_drains_goes_on_to_be_told_what_stands() {
    let (old, new) = (Instance::saying("old").await, Instance::saying("new").await);
    let mut front = Front::of(&old);
    let mut client = front.client().await;
    assert_eq!(client.get("/").await.text(), "old");
    let drained = draining(&front).await;
    let wanted = endpoint("two", &new);
    front.reconfigure(|config| {
        config.upstreams.get_mut("web").expect("web").endpoints = vec![wanted];
        let front = config.listeners["front"].clone();
        config.listeners.insert("successor's".to_owned(), front);
    });
    drop(old);
    assert_eq!(client.get("/").await.text(), "new");
    drop(client);
    soon("the end of the drain", drained).await.expect("no panic");
}

#[tokio::test]
async fn the_deadline_cuts_what_is_left() {
    let instance = Instance::serving(|mut connection: Client| async move {
        connection.message(Kind::Request).await;
        connection.rest().await;
    })
    .await;
    let front = Front::of(&instance);
    let mut client = front.client().await;
    client.send("GET / HTTP/1.1\r\nHost: test\r\n\r\n").await;
    soon("the request", async {
        while front.in_flight("one") == 0 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    soon("the cut", front.handle.drain(Duration::from_millis(50))).await;
    assert!(client.is_closed().await);
    assert_eq!(front.handle.status().in_flight, 0);
}

/// Sends requests on connections that stay until told to close, and counts the failed ones.
async fn load(address: SocketAddr, stop: Arc<AtomicBool>, done: Arc<AtomicUsize>) -> usize {
    let mut failed = 0;
    while !stop.load(Ordering::Relaxed) {
        let mut client = Client::connect(address).await;
        loop {
            client.send("GET / HTTP/1.1\r\nHost: test\r\n\r\n").await;
            let Some(answer) = soon("an answer", client.message(Kind::Response)).await else {
                failed += 1;
                break;
            };
            failed += usize::from(answer.status() != 200);
            done.fetch_add(1, Ordering::Relaxed);
            if answer.field("connection") == Some("close") || stop.load(Ordering::Relaxed) {
                break;
            }
        }
    }
    failed
}

async fn reach(done: &AtomicUsize, more: usize) {
    let goal = done.load(Ordering::Relaxed) + more;
    soon("progress", async {
        while done.load(Ordering::Relaxed) < goal {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_successor_takes_the_socket_over_under_load_without_a_failed_request() {
    let instance = Instance::saying("hello").await;
    let front = Front::of(&instance);
    let stop = Arc::new(AtomicBool::new(false));
    let done = Arc::new(AtomicUsize::new(0));
    let clients: Vec<_> =
        (0..8).map(|_| tokio::spawn(load(front.address, Arc::clone(&stop), Arc::clone(&done)))).collect();
    reach(&done, 200).await;

    let mut edges = vec![front.handle.clone()];
    drop(front.handle);
    for _ in 0..3 {
        let old = edges.pop().expect("an edge");
        let sockets: BTreeMap<String, TcpListener> = old
            .listener_fds()
            .expect("file descriptors")
            .into_iter()
            .map(|(name, socket)| (name, TcpListener::from(socket)))
            .collect();
        let new = edge::start(front.config.clone(), sockets, front::options()).expect("the successor starts");
        soon("the drain", old.drain(Duration::from_secs(8))).await;
        assert_eq!(old.status().in_flight, 0);
        edges.push(new);
        reach(&done, 200).await;
    }
    stop.store(true, Ordering::Relaxed);
    for client in clients {
        assert_eq!(soon("a client's end", client).await.expect("no panic"), 0, "failed requests");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn endpoints_come_and_go_under_load_without_a_failed_request() {
    let mut instances = vec![Instance::saying("a").await, Instance::saying("b").await];
    let mut front =
        Front::with(upstream(vec![endpoint("i0", &instances[0]), endpoint("i1", &instances[1])]), |_| {});
    let stop = Arc::new(AtomicBool::new(false));
    let done = Arc::new(AtomicUsize::new(0));
    let clients: Vec<_> =
        (0..8).map(|_| tokio::spawn(load(front.address, Arc::clone(&stop), Arc::clone(&done)))).collect();
    reach(&done, 100).await;
    for round in 0..10 {
        let (oldest, newest) = (format!("i{round}"), format!("i{}", round + 2));
        let instance = Instance::saying("c").await;
        let added = endpoint(&newest, &instance);
        instances.push(instance);
        front.reconfigure(|config| {
            let endpoints = &mut config.upstreams.get_mut("web").expect("web").endpoints;
            endpoints.push(added);
            endpoints.iter_mut().filter(|it| it.id == oldest).for_each(|it| it.draining = true);
        });
        soon("idleness", front.handle.endpoint_idle(&oldest)).await;
        front.reconfigure(|config| {
            config.upstreams.get_mut("web").expect("web").endpoints.retain(|it| it.id != oldest);
        });
        // Only now the instance goes, as the supervisor does it.
        drop(instances.remove(0));
        reach(&done, 50).await;
    }
    stop.store(true, Ordering::Relaxed);
    for client in clients {
        assert_eq!(soon("a client's end", client).await.expect("no panic"), 0, "failed requests");
    }
}
