//! Whoever stalls is waited for so long and no longer: clients that shake no hands, instances that stop in the middle.

use std::time::Duration;

use edge::config::Tls;
use tokio::net::TcpSocket;
use tokio::sync::mpsc;
use tokio::time::Instant;

use crate::support::{Client, Front, Instance, client::Kind, endpoint, front::endpoint_at, soon, upstream};

#[tokio::test]
async fn a_client_that_does_not_finish_its_tls_handshake_is_closed() {
    let directory = tempfile::tempdir().expect("a directory");
    let issued = edge::local_ca::ensure(directory.path(), &["localhost".to_owned()]).expect("certificates");
    let instance = Instance::mirror().await;
    let front = Front::with(upstream(vec![endpoint("one", &instance)]), |config| {
        config.timeouts.tls_handshake_ms = 100;
        config.listeners.get_mut("front").expect("front").tls = Some(Tls {
            certificate_chain: issued.certificate_chain.clone(),
            private_key: issued.private_key.clone(),
            revision: 0,
        });
    });
    let mut client = front.client().await;
    // The beginning of a record that never comes.
    client.send([0x16, 0x03, 0x01, 0x02, 0x00]).await;
    assert!(client.is_closed().await);
}

#[tokio::test]
async fn an_instance_whose_queue_is_full_is_given_up_after_the_time_to_connect() {
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.bind("127.0.0.1:0".parse().expect("an address")).expect("bind");
    // Nobody accepts: what does not fit into the queue gets no answer from the kernel.
    let listener = socket.listen(1).expect("listen");
    let address = listener.local_addr().expect("an address");
    let mut queued = Vec::new();
    while let Ok(connected) =
        tokio::time::timeout(Duration::from_millis(200), tokio::net::TcpStream::connect(address)).await
    {
        queued.push(connected.expect("a place in the queue"));
    }
    let front = Front::with(upstream(vec![endpoint_at("one", address)]), |config| {
        config.timeouts.connect_ms = 100;
        config.upstreams.get_mut("web").expect("web").queue_timeout_ms = 100;
    });
    let began = Instant::now();
    let mut client = front.client().await;
    let status = client.get("/").await.status();
    assert!(matches!(status, 502..=504), "{status}");
    // A single connect takes two seconds where nothing else is said.
    assert!(began.elapsed() < Duration::from_millis(2_000), "{:?}", began.elapsed());
    assert_eq!(front.in_flight("one"), 0);
}

#[tokio::test]
async fn an_answer_that_stops_in_the_middle_is_cut_off() {
    let instance = Instance::serving(|mut connection: Client| async move {
        connection.message(Kind::Request).await;
        connection.send("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf").await;
        connection.rest().await;
    })
    .await;
    let front = Front::with(upstream(vec![endpoint("one", &instance)]), |config| {
        config.timeouts.response_body_idle_ms = 150;
    });
    let mut client = front.client().await;
    client.send("GET / HTTP/1.1\r\nHost: test\r\n\r\n").await;
    assert_eq!(
        soon("the cut", client.message(Kind::Response)).await,
        None,
        "it cannot be taken for a whole answer"
    );
    soon("the end of the request", front.handle.endpoint_idle("one")).await;
}

#[tokio::test]
async fn an_upgraded_connection_on_which_nobody_says_anything_is_closed() {
    let instance = Instance::serving(|mut connection: Client| async move {
        connection.message(Kind::Request).await;
        connection
            .send(
                "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\nhello",
            )
            .await;
        connection.rest().await;
    })
    .await;
    let front = Front::with(upstream(vec![endpoint("one", &instance)]), |config| {
        config.timeouts.tunnel_idle_ms = 150;
    });
    let mut client = front.client().await;
    client.send("GET / HTTP/1.1\r\nHost: test\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n").await;
    assert_eq!(client.response().await.status(), 101);
    assert_eq!(soon("the end", client.rest()).await, b"hello");
    soon("the end of the request", front.handle.endpoint_idle("one")).await;
}

#[tokio::test]
async fn a_connection_to_an_instance_that_nobody_needs_is_closed_before_the_instance_does_it() {
    let (ended, mut ends) = mpsc::unbounded_channel();
    let instance = Instance::serving(move |mut connection: Client| {
        let ended = ended.clone();
        async move {
            while connection.message(Kind::Request).await.is_some() {
                connection.send("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").await;
            }
            let _ = ended.send(());
        }
    })
    .await;
    let front = Front::with(upstream(vec![endpoint("one", &instance)]), |config| {
        config.timeouts.upstream_idle_ms = 100;
    });
    let mut client = front.client().await;
    assert_eq!(client.get("/").await.status(), 200);
    soon("the end of the connection", ends.recv()).await.expect("the instance serves");
    assert_eq!(client.get("/").await.status(), 200);
    assert_eq!(instance.connections(), 2);
}

#[tokio::test]
async fn requests_that_wait_for_their_instance_cost_the_edge_nothing() {
    let instance = Instance::serving(|mut connection: Client| async move {
        connection.message(Kind::Request).await;
        // By now the edge watches the health of the instance as well, and this wakes it.
        tokio::time::sleep(Duration::from_millis(200)).await;
        connection.send("HTTP/1.1 200 OK\r\n").await;
        connection.rest().await;
    })
    .await;
    let front = Front::of(&instance);
    let mut client = front.client().await;
    client.send("GET / HTTP/1.1\r\nHost: test\r\n\r\n").await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(front.in_flight("one"), 1);
    let (began, used) = (Instant::now(), processor_time());
    tokio::time::sleep(Duration::from_millis(500)).await;
    let (waited, used) = (began.elapsed(), processor_time() - used);
    assert!(used < waited / 4, "{used:?} of processor time in {waited:?}");
}

/// Of this process, all its threads together.
fn processor_time() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    Duration::new(time.tv_sec.unsigned_abs(), u32::try_from(time.tv_nsec).expect("nanoseconds"))
}
