//! What every tier has done so far, in one answer: whoever asks twice has what it did between.
//!
//! For rehearsals, which ask once a second. It costs a status of each role and one query to each primary, and the proxies
//! count what they otherwise do not for a while after ([`pgproxy::WATCHED_FOR`]). Nothing of it is kept here.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use model::DatabaseRole;
use serde::{Deserialize, Serialize};
use tokio::time::timeout;

use super::Machine;
use super::roles::{edge_unit, proxy_unit};
use super::status::ProcessKind;
use crate::control::{self, Request};
use crate::postgres::Activity;
use crate::process::stat::Stat;
use crate::setup::instance_process;
use crate::usage;

/// What the daemon itself is called among the processes.
pub const DAEMON: &str = "daemon";
/// Who does not answer within this is left out of an observation.
const ANSWER_LIMIT: Duration = Duration::from_millis(500);

/// Totals only grow for the life of what counts them.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Observation {
    /// Microseconds of a clock that never goes back: when all of it began to be counted. Roles are asked at that moment, and
    /// an answer that comes late is of it nevertheless.
    pub at_us: u64,
    pub machine: MachineObserved,
    /// By name. Those that follow are `standby` or `read_replica` in `role`.
    pub processes: BTreeMap<String, ProcessObserved>,
    pub edges: BTreeMap<String, edge::Status>,
    pub databases: BTreeMap<String, DatabaseObserved>,
}

/// Of the kernel's own accounts.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MachineObserved {
    pub cores: u16,
    /// All cores, all processes.
    pub cpu_us_total: u64,
    /// Besides, for interrupts: most of it is the network, and belongs to nobody.
    pub interrupts_us_total: u64,
    /// Taken by other guests of the same host.
    pub stolen_us_total: u64,
    /// How long something that could run waited for a processor (`/proc/pressure`). `None` where the kernel does not say.
    pub pressure_cpu_us_total: Option<u64>,
    pub pressure_io_us_total: Option<u64>,
    pub pressure_memory_us_total: Option<u64>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ProcessObserved {
    /// `None`: the daemon itself with its jobs, such as a backup, or what whoever asks has named.
    pub kind: Option<ProcessKind>,
    /// Of PostgreSQL.
    pub role: Option<DatabaseRole>,
    pub pid: u32,
    /// Of an instance: it gets requests.
    pub is_serving: bool,
    pub cpu_us_total: u64,
    /// Thousandths of a core that its control group lets it use. `None`: all there are.
    pub cpu_millis: Option<u32>,
    /// Of a limited one: times that it got its share anew while it wanted some, and of these that it was used up before.
    pub periods_total: u64,
    pub throttled_periods_total: u64,
    /// Processes of it, its children included, that the kernel has killed for lack of memory.
    pub oom_kills_total: u64,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DatabaseObserved {
    pub proxy: pgproxy::DatabaseStatus,
    pub load: pgproxy::LoadStatus,
    /// Of the primary. `None`: it did not answer.
    pub activity: Option<Activity>,
}

impl Machine {
    /// `named`: processes that belong to whoever asks, such as a generator of load.
    pub async fn observe(&self, named: &[u32]) -> Observation {
        // The counters as close to each other as can be: the kernel's take no time, what has to be asked for is asked for at
        // once after them.
        let at_us = now_us();
        let machine = machine(self.inner.setup.cores);
        let processes = self.observe_processes(named);
        let (edges, databases) = tokio::join!(self.observe_edges(), self.observe_databases());
        Observation { at_us, machine, processes, edges, databases }
    }

    fn observe_processes(&self, named: &[u32]) -> BTreeMap<String, ProcessObserved> {
        let topology = self.topology();
        let setup = &self.inner.setup;
        let mut all = BTreeMap::new();
        let mut of_tiers = BTreeSet::new();
        let mut add = |name: String, process: &str, kind, role, is_serving| {
            of_tiers.insert(process.to_owned());
            let Some(found) = setup.processes.find(process) else { return };
            let used = usage::of(&found);
            let (periods, throttled) = used.periods.unwrap_or_default();
            let observed = ProcessObserved {
                kind: Some(kind),
                role,
                pid: found.pid(),
                is_serving,
                cpu_us_total: used.cpu_us,
                cpu_millis: used.cpu_limit,
                periods_total: periods,
                throttled_periods_total: throttled,
                oom_kills_total: found.oom_kills(),
            };
            all.insert(name, observed);
        };
        for instance in topology.instances.values() {
            let (name, process) = (instance.id.to_string(), instance_process(&instance.id));
            add(name, &process, ProcessKind::Web, None, instance.in_rotation);
        }
        for node in topology.nodes.values() {
            let (name, role) = (node.id.to_string(), topology.role_of(&node.id));
            add(name.clone(), &name, ProcessKind::Postgres, Some(role), true);
        }
        let edges = topology.edges.keys().map(|id| (edge_unit(id), ProcessKind::Edge));
        let proxies = topology.proxies.keys().map(|id| (proxy_unit(id), ProcessKind::Pgproxy));
        for (unit, kind) in edges.chain(proxies) {
            let process = self.units().roles.get(&unit).map(|unit| unit.process.clone());
            if let Some(process) = process {
                add(unit, &process, kind, None, true);
            }
        }
        let of_no_tier = |pid, cpu_us_total| ProcessObserved {
            kind: None,
            role: None,
            pid,
            is_serving: true,
            cpu_us_total,
            cpu_millis: None,
            periods_total: 0,
            throttled_periods_total: 0,
            oom_kills_total: 0,
        };
        let jobs = setup.processes.find_all();
        let jobs = jobs.iter().filter(|job| !of_tiers.contains(job.name()));
        let daemon = usage::cpu_us_with_programs() + jobs.map(|job| usage::of(job).cpu_us).sum::<u64>();
        all.insert(DAEMON.to_owned(), of_no_tier(std::process::id(), daemon));
        for pid in named {
            if let Some(stat) = Stat::of(*pid) {
                all.insert(format!("pid-{pid}"), of_no_tier(*pid, usage::cpu_us(&stat)));
            }
        }
        all
    }

    async fn observe_edges(&self) -> BTreeMap<String, edge::Status> {
        let mut all = BTreeMap::new();
        for id in self.topology().edges.keys() {
            let unit = edge_unit(id);
            if let Some(status) = self.ask(&unit, &Request::Status).await
                && let Ok(status) = serde_json::from_value(status)
            {
                all.insert(unit, status);
            }
        }
        all
    }

    async fn observe_databases(&self) -> BTreeMap<String, DatabaseObserved> {
        let topology = self.topology();
        let mut all = BTreeMap::new();
        for id in topology.proxies.keys() {
            let unit = proxy_unit(id);
            let primary = topology.primary_of(id);
            let activity = async {
                let primary = primary?;
                let session = self.session(&primary.id).await.ok()?;
                timeout(ANSWER_LIMIT, session.activity(&primary.database)).await.ok()?.ok()
            };
            let (status, load) = (self.ask(&unit, &Request::Status), self.ask(&unit, &Request::Load));
            let (status, load, activity) = tokio::join!(status, load, activity);
            let of_database =
                |value: Option<serde_json::Value>| value?.get_mut(id.as_str()).map(serde_json::Value::take);
            let status = of_database(
                status.and_then(|mut status| status.get_mut("databases").map(serde_json::Value::take)),
            );
            let proxy = status.and_then(|status| serde_json::from_value(status).ok());
            let load = of_database(load).and_then(|load| serde_json::from_value(load).ok());
            if let Some(proxy) = proxy {
                all.insert(
                    id.to_string(),
                    DatabaseObserved { proxy, load: load.unwrap_or_default(), activity },
                );
            }
        }
        all
    }

    async fn ask(&self, unit: &str, request: &Request) -> Option<serde_json::Value> {
        let control = self.control_of(unit)?;
        timeout(ANSWER_LIMIT, control::ask(&control, request)).await.ok()?.ok()
    }
}

fn now_us() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    u64::try_from(now.tv_sec).unwrap_or_default() * 1_000_000
        + u64::try_from(now.tv_nsec).unwrap_or_default() / 1_000
}

fn machine(cores: u16) -> MachineObserved {
    let stat = std::fs::read_to_string("/proc/stat").unwrap_or_default();
    let [cpu_us_total, interrupts_us_total, stolen_us_total] = processors(&stat).unwrap_or_default();
    let pressure = |of: &str| some_us(&std::fs::read_to_string(format!("/proc/pressure/{of}")).ok()?);
    MachineObserved {
        cores,
        cpu_us_total,
        interrupts_us_total,
        stolen_us_total,
        pressure_cpu_us_total: pressure("cpu"),
        pressure_io_us_total: pressure("io"),
        pressure_memory_us_total: pressure("memory"),
    }
}

/// What all processors worked for processes and for interrupts, and what was stolen from them, of the first line of
/// `/proc/stat`: `cpu user nice system idle iowait irq softirq steal guest guest_nice` in ticks, guests being within `user`
/// and `nice`.
fn processors(stat: &str) -> Option<[u64; 3]> {
    let line = stat.lines().next()?.strip_prefix("cpu ")?;
    let ticks: Vec<u64> = line.split_ascii_whitespace().map_while(|word| word.parse().ok()).collect();
    let tick = |index: usize| ticks.get(index).copied().unwrap_or(0);
    Some([tick(0) + tick(1) + tick(2), tick(5) + tick(6), tick(7)].map(usage::ticks_us))
}

/// The total of the line `some avg10=0.00 avg60=0.00 avg300=0.00 total=0` of a file of pressures.
fn some_us(pressure: &str) -> Option<u64> {
    let line = pressure.lines().find_map(|line| line.strip_prefix("some "))?;
    line.split_ascii_whitespace().find_map(|word| word.strip_prefix("total=")?.parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_machine_does_is_read_from_the_kernels_words() {
        let stat = "cpu  100 20 30 4000 50 6 7 80 10 0\ncpu0 1 1 1 1 1 1 1 1 1 1\n";
        assert_eq!(processors(stat), Some([150, 13, 80].map(usage::ticks_us)));
        assert_eq!(processors("intr 1 2 3"), None);
        let pressure = "some avg10=0.09 avg60=2.18 avg300=10.75 total=15265\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=7\n";
        assert_eq!(some_us(pressure), Some(15_265));
        assert_eq!(some_us(""), None);
    }
}
