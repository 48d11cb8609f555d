//! An edge on port 0.

use std::collections::BTreeMap;
use std::net::{SocketAddr, TcpListener};
use std::num::NonZeroUsize;

use edge::config::{
    Config, Endpoint, HealthCheck, Limits, Listener, OutlierDetection, RetryBudget, Route, Timeouts,
    Upstream, UpstreamProtocol,
};
use edge::{Handle, Options};

use super::{Client, Instance};

/// A running edge with the configuration it was given last.
pub struct Front {
    pub handle: Handle,
    pub address: SocketAddr,
    pub config: Config,
}

/// An endpoint with this id.
pub fn endpoint(id: &str, instance: &Instance) -> Endpoint {
    endpoint_at(id, instance.address)
}

pub fn endpoint_at(id: &str, address: SocketAddr) -> Endpoint {
    Endpoint { id: id.to_owned(), address, zone: None, release: None, draining: false, weight: 100 }
}

/// An upstream of plain endpoints whose active checks stay out of the way.
pub fn upstream(endpoints: Vec<Endpoint>) -> Upstream {
    Upstream {
        protocol: UpstreamProtocol::Http1,
        endpoints,
        health: HealthCheck { interval_ms: 3_600_000, ..HealthCheck::default() },
        outlier: OutlierDetection::default(),
        retry: RetryBudget::default(),
        slow_start_ms: 0,
        max_in_flight: 1_024,
        queue_length: 1_024,
        queue_timeout_ms: 10_000,
        replay_body_bytes: 64 * 1024,
    }
}

/// One listener, one upstream that takes everything.
pub fn config(address: SocketAddr, upstream: Upstream) -> Config {
    Config {
        generation: 1,
        listeners: BTreeMap::from([("front".to_owned(), Listener { address, tls: None })]),
        routes: vec![Route { host: None, path_prefix: "/".to_owned(), upstream: "web".to_owned() }],
        upstreams: BTreeMap::from([("web".to_owned(), upstream)]),
        timeouts: Timeouts::default(),
        limits: Limits::default(),
        access_log: None,
        trusted_proxies: Vec::new(),
        freshness: BTreeMap::new(),
        zone: None,
    }
}

pub fn options() -> Options {
    Options { threads: NonZeroUsize::new(2).expect("two is not zero"), version: "test".to_owned() }
}

impl Front {
    /// In front of one instance.
    pub fn of(instance: &Instance) -> Front {
        Front::with(upstream(vec![endpoint("one", instance)]), |_| {})
    }

    /// In front of `upstream`, with whatever else the test wants changed.
    pub fn with(upstream: Upstream, change: impl FnOnce(&mut Config)) -> Front {
        let socket = TcpListener::bind("127.0.0.1:0").expect("bind");
        Front::on(socket, upstream, change)
    }

    /// On a given socket.
    pub fn on(socket: TcpListener, upstream: Upstream, change: impl FnOnce(&mut Config)) -> Front {
        let address = socket.local_addr().expect("an address");
        let mut config = config(address, upstream);
        change(&mut config);
        let sockets = BTreeMap::from([("front".to_owned(), socket)]);
        let handle = edge::start(config.clone(), sockets, options()).expect("the edge starts");
        Front { handle, address, config }
    }

    /// Puts a changed configuration in force.
    pub fn reconfigure(&mut self, change: impl FnOnce(&mut Config)) {
        change(&mut self.config);
        self.config.generation += 1;
        self.handle.configure(self.config.clone()).expect("the configuration is fine");
    }

    pub async fn client(&self) -> Client {
        Client::connect(self.address).await
    }

    /// Requests in flight on an endpoint.
    pub fn in_flight(&self, id: &str) -> u64 {
        self.handle.status().endpoints.get(id).map_or(0, |endpoint| endpoint.in_flight)
    }
}
