//! What the tiers do, second by second: two observations of the daemon make a second of each.
//!
//! The names are those of [`rehearsal::diagnosis::evidence`], and what they mean stands there.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use local::machine::{DAEMON, DatabaseObserved, Observation, ProcessKind, ProcessObserved};
use model::DatabaseRole;
use pgproxy::NodeLoad;
use rehearsal::diagnosis::evidence::{more, tier};
use rehearsal::record::{Tier, TierSecond};

use crate::api::Request;
use crate::api::client::{CallError, call_within};

/// A control group's share of the processors is given anew this often, see `local::cgroup`.
const PERIOD: Duration = Duration::from_millis(100);
/// A daemon that has not answered by then is looked at again; it gives each of its roles half a second.
const LOOK_LIMIT: Duration = Duration::from_secs(3);
/// What lies between two looks is a second, or two where one look was slow. What is longer is a gap: its mean is of no second.
const GAP: Duration = Duration::from_millis(2_500);
/// Requests at once from which on those that have not ended yet weigh more than those that have.
const MANY_IN_FLIGHT: u64 = 8;

/// What one look has seen.
#[derive(Debug, Default)]
pub struct Look {
    /// What each tier did since the look before.
    pub seconds: Vec<(&'static str, TierSecond)>,
    /// What is another than it was: who came, went, or has another part now.
    pub changes: Vec<String>,
}

/// Watches the tiers of an app, once a second.
pub struct Watch {
    socket: PathBuf,
    /// Processes of the rehearsal itself.
    generator: Vec<u32>,
    began: Instant,
    before: Option<Observation>,
    now: Option<Observation>,
    tiers: BTreeMap<&'static str, Tier>,
    /// Of the primaries' statements, what each has taken since the watch began.
    statements: BTreeMap<String, u64>,
}

impl Watch {
    /// Seconds count from `began`.
    pub fn new(socket: &Path, generator: Vec<u32>, began: Instant) -> Watch {
        Watch {
            socket: socket.to_owned(),
            generator,
            began,
            before: None,
            now: None,
            tiers: BTreeMap::new(),
            statements: BTreeMap::new(),
        }
    }

    /// Looks once, and sees what each tier did since the last look. To be called at the end of each second; the first call
    /// only begins.
    ///
    /// # Errors
    /// When the daemon does not answer in time: the second is missing, and the next look goes on.
    pub fn look(&mut self) -> Result<Look, CallError> {
        let seen = self.question().ask()?;
        Ok(self.hear(seen))
    }

    /// What to ask now. Whoever must not wait for the daemon while others wait for this watch asks beside it.
    pub fn question(&self) -> Question {
        Question { socket: self.socket.clone(), named: self.generator.clone() }
    }

    /// Takes in an answer.
    pub fn hear(&mut self, seen: Seen) -> Look {
        // The second that has just passed, whether the look came a little before or after its end.
        let asked = seen.asked.saturating_duration_since(self.began);
        let at = (asked.as_secs_f64() - 0.5).max(0.0) as u32;
        let Some(before) = self.now.replace(seen.observation) else { return Look::default() };
        let Some(now) = &self.now else { return Look::default() };
        let changes = changes(&before, now);
        if Duration::from_micros(now.at_us.saturating_sub(before.at_us)) > GAP {
            self.before = None;
            return Look { changes, seconds: Vec::new() };
        }
        for (text, us) in statements(&before, now) {
            *self.statements.entry(text).or_default() += us;
        }
        let seconds = seconds(&before, now, at, self.top_statement());
        for (name, second) in &seconds {
            let new = || Tier { name: (*name).to_owned(), seconds: Vec::new() };
            self.tiers.entry(name).or_insert_with(new).seconds.push(second.clone());
        }
        self.before = Some(before);
        Look { seconds, changes }
    }

    /// The last two looks, where no gap lies between them.
    pub fn last_two(&self) -> Option<(&Observation, &Observation)> {
        Some((self.before.as_ref()?, self.now.as_ref()?))
    }

    /// Whose processor time is that of the load's generator, from now on.
    pub fn watch_generator(&mut self, pid: Option<u32>) {
        self.generator = pid.into_iter().collect();
    }

    /// All that was seen, for a record.
    pub fn tiers(&self) -> Vec<Tier> {
        self.tiers.values().cloned().collect()
    }

    /// The statement that has taken most of the primaries' time, its literals folded.
    pub fn top_statement(&self) -> Option<&str> {
        let top = self.statements.iter().max_by_key(|(_, us)| **us)?;
        Some(top.0)
    }
}

/// A look that is yet to be taken.
pub struct Question {
    socket: PathBuf,
    named: Vec<u32>,
}

/// A look that was taken.
pub struct Seen {
    /// When the daemon was asked: what it counts is of that moment, however long the answer takes.
    asked: Instant,
    observation: Observation,
}

impl Question {
    /// # Errors
    /// When the daemon does not answer in time.
    pub fn ask(self) -> Result<Seen, CallError> {
        let asked = Instant::now();
        let observation = call_within(&self.socket, &Request::Observe { named: self.named }, LOOK_LIMIT)?;
        Ok(Seen { asked, observation })
    }
}

/// What another look at the app would call news.
fn changes(before: &Observation, now: &Observation) -> Vec<String> {
    let of_app = |all: &Observation| -> BTreeMap<String, ProcessObserved> {
        let of_app = all.processes.iter().filter(|(_, process)| process.kind.is_some());
        of_app.map(|(name, process)| (name.clone(), process.clone())).collect()
    };
    let (then, now) = (of_app(before), of_app(now));
    let mut changes = Vec::new();
    for (name, process) in &now {
        // Of a database that is one session of many, after which PostgreSQL ends all others and begins again.
        if then
            .get(name)
            .is_some_and(|then| then.pid == process.pid && then.oom_kills_total < process.oom_kills_total)
        {
            changes.push(format!("{name} was out of memory, and the kernel killed a process of it"));
        }
        match then.get(name) {
            None => changes.push(format!("{name} is there")),
            Some(then) if then.pid != process.pid => changes.push(format!("{name} was started anew")),
            Some(then) if then.role != process.role && process.role == Some(DatabaseRole::Primary) => {
                changes.push(format!("{name} is the primary now"));
            }
            Some(then) if process.is_serving && !then.is_serving => {
                changes.push(format!("{name} gets requests"));
            }
            Some(then) if then.is_serving && !process.is_serving => {
                changes.push(format!("{name} gets no new requests"));
            }
            Some(_) => {}
        }
    }
    changes.extend(then.keys().filter(|name| !now.contains_key(*name)).map(|name| format!("{name} is gone")));
    changes
}

/// What each statement took of the primaries' time between two observations, in microseconds.
fn statements(before: &Observation, now: &Observation) -> Vec<(String, u64)> {
    let mut all = Vec::new();
    for (before, now) in databases(before, now) {
        for (text, load) in &now.load.statements {
            let then = before.load.statements.get(text).map_or(0, |load| load.busy_us_total);
            all.push((text.clone(), load.busy_us_total.saturating_sub(then)));
        }
    }
    all
}

fn databases<'a>(
    before: &'a Observation,
    now: &'a Observation,
) -> impl Iterator<Item = (&'a DatabaseObserved, &'a DatabaseObserved)> {
    now.databases.iter().filter_map(|(name, now)| Some((before.databases.get(name)?, now)))
}

/// What each tier did between two observations. What began or ended between them is left out.
fn seconds(
    before: &Observation,
    now: &Observation,
    at: u32,
    top: Option<&str>,
) -> Vec<(&'static str, TierSecond)> {
    let elapsed = Elapsed::between(before, now);
    let of = |tier| processes(before, now, at, elapsed, move |_, process| is_of(process, tier));
    let mut all = vec![(tier::MACHINE, machine(before, now, at, elapsed))];
    let edge = edge(before, now, of(tier::EDGE), elapsed);
    let web = web(before, now, of(tier::WEB), elapsed);
    all.extend([(tier::EDGE, edge), (tier::WEB, web)]);
    if now.databases.is_empty() {
        return all;
    }
    let databases: Vec<_> = databases(before, now).collect();
    all.push((tier::PROXY, proxy(&databases, of(tier::PROXY), elapsed)));
    all.push((tier::PRIMARY, primary(&databases, of(tier::PRIMARY), elapsed, top)));
    let standbys = of(tier::STANDBYS);
    if standbys.members > 0 {
        all.push((tier::STANDBYS, standbys));
    }
    let replicas = of(tier::REPLICAS);
    if replicas.members > 0 {
        all.push((tier::REPLICAS, read_replicas(&databases, replicas, elapsed)));
    }
    all
}

/// Whether it is one of the processes of a tier.
fn is_of(process: &ProcessObserved, tier: &str) -> bool {
    let named = match (process.kind, process.role) {
        (Some(ProcessKind::Edge), _) => tier::EDGE,
        (Some(ProcessKind::Web), _) => tier::WEB,
        (Some(ProcessKind::Pgproxy), _) => tier::PROXY,
        (Some(ProcessKind::Postgres), Some(DatabaseRole::Primary)) => tier::PRIMARY,
        (Some(ProcessKind::Postgres), Some(DatabaseRole::Standby)) => tier::STANDBYS,
        (Some(ProcessKind::Postgres), Some(DatabaseRole::ReadReplica)) => tier::REPLICAS,
        (Some(ProcessKind::Postgres), None) | (None, _) => return false,
    };
    named == tier
}

pub(super) fn processes_of<'a>(
    now: &'a Observation,
    tier: &'a str,
) -> impl Iterator<Item = (&'a str, &'a ProcessObserved)> {
    let named = now.processes.iter().map(|(name, process)| (name.as_str(), process));
    named.filter(move |(_, process)| is_of(process, tier))
}

/// Microseconds between two observations.
#[derive(Debug, Clone, Copy)]
pub(super) struct Elapsed(f64);

impl Elapsed {
    pub(super) fn between(before: &Observation, now: &Observation) -> Elapsed {
        Elapsed(now.at_us.saturating_sub(before.at_us).max(1) as f64)
    }

    /// Of a total that counts.
    fn per_second(self, before: u64, now: u64) -> f64 {
        now.saturating_sub(before) as f64 * 1e6 / self.0
    }

    /// Of a total of microseconds: how many of them passed in each. For processors those in use, for requests those under
    /// way (Little's law).
    pub(super) fn mean(self, before: u64, now: u64) -> f64 {
        now.saturating_sub(before) as f64 / self.0
    }
}

fn processes(
    before: &Observation,
    now: &Observation,
    at: u32,
    elapsed: Elapsed,
    is_one: impl Fn(&str, &ProcessObserved) -> bool,
) -> TierSecond {
    let mut second = TierSecond { at, ..TierSecond::default() };
    let cores = f64::from(now.machine.cores);
    for (name, process) in now.processes.iter().filter(|(name, process)| is_one(name, process)) {
        second.members += u32::from(process.is_serving);
        second.cpu_allowed += process.cpu_millis.map_or(cores, |millis| f64::from(millis) / 1e3);
        let Some(before) = before.processes.get(name).filter(|before| before.pid == process.pid) else {
            continue;
        };
        second.cpu += elapsed.mean(before.cpu_us_total, process.cpu_us_total);
        let held_back = process.throttled_periods_total.saturating_sub(before.throttled_periods_total);
        second.throttled += held_back as f64 * PERIOD.as_micros() as f64 / elapsed.0;
    }
    if second.members > 0 {
        second.throttled = (second.throttled / f64::from(second.members)).min(1.0);
    }
    // Together they have no more than the machine, and without limits that is what each has.
    second.cpu_allowed = second.cpu_allowed.min(cores);
    second
}

fn machine(before: &Observation, now: &Observation, at: u32, elapsed: Elapsed) -> TierSecond {
    let (then, machine) = (&before.machine, &now.machine);
    let cores = f64::from(machine.cores);
    let worked = elapsed.mean(then.cpu_us_total, machine.cpu_us_total);
    let interrupts = elapsed.mean(then.interrupts_us_total, machine.interrupts_us_total);
    let stolen = elapsed.mean(then.stolen_us_total, machine.stolen_us_total);
    let known = processes(before, now, at, elapsed, |_, _| true).cpu;
    let generator =
        processes(before, now, at, elapsed, |name, process| process.kind.is_none() && name != DAEMON);
    let mut second = TierSecond {
        at,
        members: 1,
        cpu: worked + interrupts + stolen,
        cpu_allowed: cores,
        ..TierSecond::default()
    };
    let pressure = |before: Option<u64>, now: Option<u64>| Some(elapsed.mean(before?, now?).min(1.0));
    let measured = [
        (more::PRESSURE_CPU, pressure(then.pressure_cpu_us_total, machine.pressure_cpu_us_total)),
        (more::PRESSURE_IO, pressure(then.pressure_io_us_total, machine.pressure_io_us_total)),
        (more::PRESSURE_MEMORY, pressure(then.pressure_memory_us_total, machine.pressure_memory_us_total)),
        (more::GENERATOR_CPU, Some(generator.cpu)),
        (more::FOREIGN_CPU, Some((worked - known).max(0.0) + stolen)),
    ];
    add(&mut second, measured);
    second
}

fn add<const N: usize>(second: &mut TierSecond, measured: [(&str, Option<f64>); N]) {
    let known = measured.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?)));
    second.more.extend(known);
}

fn edge(before: &Observation, now: &Observation, second: TierSecond, elapsed: Elapsed) -> TierSecond {
    let mut second = second;
    for (name, status) in &now.edges {
        let Some(then) = before.edges.get(name) else { continue };
        second.in_flight +=
            under_way(elapsed.mean(then.request_us_total, status.request_us_total), status.in_flight);
        second.waiting += status.queued as f64;
        second.done += elapsed.per_second(then.requests_total, status.requests_total);
        second.errors += elapsed.per_second(then.failed_total, status.failed_total);
    }
    second
}

/// What has ended tells how much was under way exactly, but for what has not ended yet: when that grows, a look is nearer.
fn under_way(ended: f64, now: u64) -> f64 {
    if now >= MANY_IN_FLIGHT { ended.max(now as f64) } else { ended }
}

fn web(before: &Observation, now: &Observation, second: TierSecond, elapsed: Elapsed) -> TierSecond {
    let mut second = second;
    let (mut ended, mut in_flight) = (0.0, 0);
    for (name, status) in &now.edges {
        let Some(then) = before.edges.get(name) else { continue };
        for (id, endpoint) in &status.endpoints {
            let then = then.endpoints.get(id).cloned().unwrap_or_default();
            in_flight += endpoint.in_flight;
            ended += elapsed.mean(then.latency_us_total, endpoint.latency_us_total);
            second.done += elapsed.per_second(then.requests_total, endpoint.requests_total);
            let failed = |of: &edge::status::EndpointStatus| of.responses_5xx_total + of.failures_total;
            second.errors += elapsed.per_second(failed(&then), failed(endpoint));
        }
    }
    second.in_flight = under_way(ended, in_flight);
    second
}

type Pair<'a> = (&'a DatabaseObserved, &'a DatabaseObserved);

fn proxy(databases: &[Pair], second: TierSecond, elapsed: Elapsed) -> TierSecond {
    let mut second = second;
    let (mut size, mut busy) = (0, 0);
    for (then, now) in databases {
        let (then, now) = (&then.proxy, &now.proxy);
        size += now.pool_size;
        busy += now.servers.saturating_sub(now.servers_idle);
        second.waiting += now.waiting as f64;
        second.done += elapsed.per_second(then.requests_total, now.requests_total);
    }
    second.in_flight = busy as f64;
    add(&mut second, [(more::POOL_SIZE, Some(size as f64)), (more::POOL_BUSY, Some(busy as f64))]);
    second
}

/// Of the statements of all databases: under way, of these the reads, and answered.
fn load(databases: &[Pair], elapsed: Elapsed, of: impl Fn(&DatabaseObserved) -> &NodeLoad) -> [f64; 3] {
    let mut sums = [0.0; 3];
    for (then, now) in databases {
        let (then, now) = (of(then), of(now));
        for (kind, us) in &now.busy_us_total {
            let mean = elapsed.mean(then.busy_us_total.get(kind).copied().unwrap_or(0), *us);
            sums[0] += mean;
            sums[1] += if kind == "read" { mean } else { 0.0 };
        }
        for (kind, count) in &now.requests_total {
            sums[2] += elapsed.per_second(then.requests_total.get(kind).copied().unwrap_or(0), *count);
        }
    }
    sums
}

fn primary(databases: &[Pair], second: TierSecond, elapsed: Elapsed, top: Option<&str>) -> TierSecond {
    let mut second = second;
    let [in_flight, reads, done] = load(databases, elapsed, |database| &database.load.primary);
    (second.in_flight, second.done) = (in_flight, done);
    let (mut top_in_flight, mut top_done) = (0.0, 0.0);
    for (then, now) in databases {
        let of = |database: &DatabaseObserved| database.load.statements.get(top?).copied();
        let (then, now) = (of(then).unwrap_or_default(), of(now).unwrap_or_default());
        top_in_flight += elapsed.mean(then.busy_us_total, now.busy_us_total);
        top_done += elapsed.per_second(then.requests_total, now.requests_total);
    }
    add(
        &mut second,
        [
            (more::READS_IN_FLIGHT, Some(reads)),
            (more::TOP_IN_FLIGHT, Some(top_in_flight)),
            (more::TOP_DONE, Some(top_done)),
        ],
    );
    let activities: Option<Vec<_>> =
        databases.iter().map(|(then, now)| Some((then.activity?, now.activity?))).collect();
    let Some(activities) = activities else { return second };
    let sessions = |read: fn(&local::postgres::Activity) -> u64| {
        Some(activities.iter().map(|(_, now)| read(now) as f64).sum())
    };
    let rate = |read: fn(&local::postgres::Activity) -> u64| {
        Some(activities.iter().map(|(then, now)| elapsed.per_second(read(then), read(now))).sum())
    };
    add(
        &mut second,
        [
            (more::SESSIONS_RUNNING, sessions(|of| of.running)),
            (more::SESSIONS_LOCKED, sessions(|of| of.locked)),
            (more::SESSIONS_DATA_IO, sessions(|of| of.data_io)),
            (more::SESSIONS_LOG, sessions(|of| of.log)),
            (more::SESSIONS_IDLE_IN_TRANSACTION, sessions(|of| of.idle_in_transaction)),
            (more::ROWS_READ, rate(|of| of.rows_read_total)),
            (more::PAGES_READ, rate(|of| of.pages_read_total)),
            (more::PAGES_HIT, rate(|of| of.pages_hit_total)),
        ],
    );
    second
}

fn read_replicas(databases: &[Pair], second: TierSecond, elapsed: Elapsed) -> TierSecond {
    let mut second = second;
    let [in_flight, reads, done] = load(databases, elapsed, |database| &database.load.replicas);
    (second.in_flight, second.done) = (in_flight, done);
    let too_late = databases.iter().map(|(then, now)| {
        elapsed.per_second(then.proxy.reads_too_late_total, now.proxy.reads_too_late_total)
    });
    let nodes = databases.iter().flat_map(|(_, now)| now.proxy.nodes.values());
    let lag = nodes.filter_map(|node| node.fresh_age_ms).max();
    add(
        &mut second,
        [
            (more::READS_IN_FLIGHT, Some(reads)),
            (more::READS_TOO_LATE, Some(too_late.sum())),
            (more::LAG_MS, lag.map(|ms| ms as f64)),
        ],
    );
    second
}

#[cfg(test)]
mod tests {
    use local::machine::MachineObserved;

    use super::*;

    fn process(kind: Option<ProcessKind>, pid: u32, cpu_us: u64, throttled: u64) -> ProcessObserved {
        ProcessObserved {
            kind,
            role: None,
            pid,
            is_serving: true,
            cpu_us_total: cpu_us,
            cpu_millis: kind.map(|_| 500),
            periods_total: 10 * throttled,
            throttled_periods_total: throttled,
            oom_kills_total: 0,
        }
    }

    fn observation(at_us: u64, machine_us: u64, processes: &[(&str, ProcessObserved)]) -> Observation {
        Observation {
            at_us,
            machine: MachineObserved { cores: 4, cpu_us_total: machine_us, ..MachineObserved::default() },
            processes: processes.iter().map(|(name, of)| ((*name).to_owned(), of.clone())).collect(),
            edges: BTreeMap::new(),
            databases: BTreeMap::new(),
        }
    }

    fn second_of(before: &Observation, now: &Observation, name: &str) -> TierSecond {
        let seconds = seconds(before, now, 3, None);
        seconds.into_iter().find(|(of, _)| *of == name).expect("the tier is there").1
    }

    #[test]
    fn a_second_of_a_tier_is_the_difference_of_two_observations() {
        let web = Some(ProcessKind::Web);
        let before = observation(
            1_000_000,
            5_000_000,
            &[
                ("web.1", process(web, 11, 1_000, 0)),
                ("web.2", process(web, 12, 700_000, 0)),
                (DAEMON, process(None, 1, 0, 0)),
                ("pid-9", process(None, 9, 0, 0)),
            ],
        );
        let now = observation(
            3_000_000,
            8_000_000,
            &[
                ("web.1", process(web, 11, 1_001_000, 10)),
                // Another process of this name: what it has used is not known for these seconds.
                ("web.2", process(web, 13, 900, 0)),
                (DAEMON, process(None, 1, 20_000, 0)),
                ("pid-9", process(None, 9, 1_200_000, 0)),
            ],
        );
        let web = second_of(&before, &now, tier::WEB);
        assert_eq!((web.members, web.cpu, web.cpu_allowed), (2, 0.5, 1.0));
        // Ten of the 20 periods of one of the two.
        assert_eq!(web.throttled, 0.25);
        let machine = second_of(&before, &now, tier::MACHINE);
        assert_eq!((machine.at, machine.cpu, machine.cpu_allowed), (3, 1.5, 4.0));
        assert_eq!(machine.more[more::GENERATOR_CPU], 0.6);
        assert!((machine.more[more::FOREIGN_CPU] - 0.39).abs() < 1e-9);
        // The kernel does not say.
        assert!(!machine.more.contains_key(more::PRESSURE_CPU));
    }

    #[test]
    fn a_process_that_is_killed_for_lack_of_memory_is_news() {
        let with = |kills| ProcessObserved {
            oom_kills_total: kills,
            ..process(Some(ProcessKind::Postgres), 7, 0, 0)
        };
        let seen = |before, now| {
            changes(&observation(0, 0, &[("db.1", with(before))]), &observation(1, 0, &[("db.1", with(now))]))
        };
        assert_eq!(seen(1, 2), ["db.1 was out of memory, and the kernel killed a process of it"]);
        assert_eq!(seen(2, 2), [""; 0]);
    }

    #[test]
    fn what_lies_between_two_looks_that_are_far_apart_is_a_gap_and_not_a_second() {
        let began = Instant::now();
        let mut watch = Watch::new(Path::new("/none"), Vec::new(), began);
        let mut look = |at_ms: u64| {
            let asked = began + Duration::from_millis(at_ms);
            watch.hear(Seen { asked, observation: observation(at_ms * 1_000, at_ms * 1_000, &[]) });
            watch.last_two().is_some()
        };
        assert_eq!([1_000, 2_010, 3_990, 8_000, 9_000].map(&mut look), [false, true, true, false, true]);
        let seconds: Vec<u32> = watch.tiers()[0].seconds.iter().map(|second| second.at).collect();
        assert_eq!(seconds, [1, 3, 8]);
    }

    #[test]
    fn what_has_not_ended_counts_where_it_piles_up() {
        assert_eq!(under_way(2.5, 3), 2.5);
        assert_eq!(under_way(2.5, 40), 40.0);
    }
}
