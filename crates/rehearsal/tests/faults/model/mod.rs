//! An app as a small queueing network, seeded: edge, instances with workers, a pool of connections, a primary with locks and
//! disks, replicas, and the cores that all of them share. It measures itself as the real tiers do.
//!
//! Processors are shared evenly among the requests of a process, and max-min fairly among processes, each up to its limit:
//! what the kernel's scheduler does with control groups of one weight. Everything else is a queue with a number of servers.

mod parts;
mod run;

use std::collections::BTreeMap;

use rehearsal::diagnosis::Step;
use run::Run;

/// Times in seconds, processor times in core-seconds for each request or statement.
#[derive(Debug, Clone)]
pub struct Model {
    pub machine_cores: f64,
    /// Used by others.
    pub foreign: f64,
    pub edge_cpu: f64,
    pub edge_limit: Option<f64>,
    pub instances: usize,
    pub web_cpu: f64,
    pub web_limit: Option<f64>,
    /// Of an instance, requests that can use a processor at once.
    pub web_threads: Option<usize>,
    /// Of an instance, requests in it at once.
    pub workers: Option<usize>,
    /// In the app, requests at once from which on it refuses more.
    pub refuses_at: Option<usize>,
    /// Waiting for something else while a worker is held.
    pub outside: f64,
    pub pool: usize,
    pub database_limit: Option<f64>,
    pub replicas: usize,
    /// Share of the reads that a replica is fresh enough for.
    pub fresh: f64,
    pub writes: f64,
    pub read_cpu: f64,
    pub write_cpu: f64,
    /// Share of a write's processor time that each replica spends to replay it.
    pub replay: f64,
    /// A write holds the one lock of all for this long on top of its work.
    pub locked: f64,
    /// Of a write, on the log's one disk.
    pub log: f64,
    /// Of a read, on the data's two disks.
    pub data: f64,
    /// A request keeps its connection for this long after its statement.
    pub idle_in_transaction: f64,
    /// Of the reads, the share of one statement.
    pub top: f64,
    pub rows: f64,
}

impl Default for Model {
    /// Nothing is near to full at 100/s; the machine has room for three times that.
    fn default() -> Model {
        Model {
            machine_cores: 4.0,
            foreign: 0.02,
            edge_cpu: 0.0002,
            edge_limit: None,
            instances: 1,
            web_cpu: 0.003,
            web_limit: Some(2.0),
            web_threads: None,
            workers: None,
            refuses_at: None,
            outside: 0.0,
            pool: 20,
            database_limit: Some(1.0),
            replicas: 0,
            fresh: 1.0,
            writes: 0.1,
            read_cpu: 0.001,
            write_cpu: 0.001,
            replay: 0.3,
            locked: 0.0,
            log: 0.0005,
            data: 0.0,
            idle_in_transaction: 0.0,
            top: 0.3,
            rows: 20.0,
        }
    }
}

impl Model {
    /// A staircase of steps of `seconds` each.
    pub fn run(&self, rates: &[f64], seconds: u32, seed: u64) -> Vec<Step> {
        let mut run = Run::new(self, seed);
        rates.iter().map(|rate| run.step(*rate, seconds)).collect()
    }

    fn edge(&self) -> usize {
        0
    }

    fn primary(&self) -> usize {
        1 + self.instances
    }

    fn replica(&self, number: usize) -> usize {
        2 + self.instances + number
    }

    /// The rates at which each resource is full, by hand: what a diagnosis is compared with.
    pub fn caps(&self) -> BTreeMap<&'static str, f64> {
        let reads = 1.0 - self.writes;
        let on_replicas = if self.replicas > 0 { reads * self.fresh } else { 0.0 };
        let limit = |limit: Option<f64>| limit.unwrap_or(self.machine_cores).min(self.machine_cores);
        let count = self.instances as f64;
        let primary = (reads - on_replicas) * self.read_cpu + self.writes * self.write_cpu;
        let each_replica = on_replicas * self.read_cpu / self.replicas.max(1) as f64
            + self.writes * self.write_cpu * self.replay;
        let statement =
            reads * (self.read_cpu + self.data) + self.writes * (self.write_cpu + self.locked + self.log);
        let holds_connection = statement + self.idle_in_transaction;
        let holds_worker = self.web_cpu + self.outside + holds_connection;
        let threads = self.web_threads.map_or(f64::INFINITY, |threads| threads as f64);
        let all = self.edge_cpu + self.web_cpu + primary + each_replica * self.replicas as f64;
        BTreeMap::from([
            ("edge", limit(self.edge_limit) / self.edge_cpu),
            ("web", count * limit(self.web_limit).min(threads) / self.web_cpu),
            ("workers", self.workers.map_or(f64::INFINITY, |workers| count * workers as f64 / holds_worker)),
            ("refuses", self.refuses_at.map_or(f64::INFINITY, |at| at as f64 / holds_worker)),
            ("pool", self.pool as f64 / holds_connection / (1.0 - on_replicas)),
            ("primary", limit(self.database_limit) / primary),
            (
                "replicas",
                if self.replicas > 0 { limit(self.database_limit) / each_replica } else { f64::INFINITY },
            ),
            (
                "lock",
                if self.locked > 0.0 {
                    1.0 / (self.writes * (self.write_cpu + self.locked))
                } else {
                    f64::INFINITY
                },
            ),
            ("log", 1.0 / (self.writes * self.log)),
            ("data", if self.data > 0.0 { 2.0 / ((reads - on_replicas) * self.data) } else { f64::INFINITY }),
            ("machine", (self.machine_cores - self.foreign) / all),
        ])
    }

    /// What is full first, and by how much before the next. The machine is what everybody has together, so it is not one of
    /// them.
    pub fn first(&self) -> (&'static str, f64, f64) {
        let mut caps: Vec<_> = self.caps().into_iter().collect();
        caps.sort_by(|a, b| a.1.total_cmp(&b.1));
        (caps[0].0, caps[0].1, caps[1].1 / caps[0].1)
    }
}
