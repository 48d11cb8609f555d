//! An edge alone, for measuring: `bench_edge CONFIG.json THREADS`. Listens on the addresses of the configuration and
//! serves until it is killed.

use std::collections::BTreeMap;
use std::error::Error;
use std::net::TcpListener;
use std::num::NonZeroUsize;

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let (Some(path), Some(threads)) = (arguments.next(), arguments.next()) else {
        return Err("usage: bench_edge CONFIG.json THREADS".into());
    };
    let config: edge::Config = serde_json::from_slice(&std::fs::read(path)?)?;
    let threads: NonZeroUsize = threads.parse()?;
    let mut sockets = BTreeMap::new();
    for (name, listener) in &config.listeners {
        sockets.insert(name.clone(), TcpListener::bind(listener.address)?);
    }
    let options = edge::Options { threads, version: env!("CARGO_PKG_VERSION").to_owned() };
    let _edge = edge::start(config, sockets, options)?;
    loop {
        std::thread::park();
    }
}
