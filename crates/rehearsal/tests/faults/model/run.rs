//! A run of the model: each request from place to place, and what the tiers measure meanwhile.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};

use rehearsal::diagnosis::Step;
use rehearsal::diagnosis::evidence::{Window, more, tier};
use rehearsal::record::{Tier, TierSecond};

use super::Model;
use super::parts::{Chance, Id, Ordered, Processors, Queue, Sums};

/// Requests in the edge's hands, queue included; above it refuses.
const MOST: usize = 2_048;
/// A client gives up.
const PATIENCE: f64 = 8.0;
/// The objective.
const MOST_P99: f64 = 0.25;
const MOST_LOST: f64 = 0.001;
/// Before what a step measures counts.
const SETTLES: u32 = 2;

/// Where a request is.
#[derive(Debug, Clone, Copy, PartialEq)]
enum At {
    Edge,
    Worker,
    WebBefore,
    Outside,
    Connection,
    Data,
    Lock,
    Statement,
    Locked,
    Log,
    Idle,
    WebAfter,
    Gone,
}

#[derive(Debug, Clone, Copy)]
struct Request {
    arrived: f64,
    at: At,
    writes: bool,
    is_top: bool,
    instance: usize,
    /// `None`: the primary.
    replica: Option<usize>,
}

pub struct Run<'a> {
    model: &'a Model,
    chance: Chance,
    now: f64,
    requests: Vec<Request>,
    /// Those that ended are given out again.
    free: Vec<Id>,
    /// Edge, instances, primary, replicas.
    processors: Vec<Processors>,
    timers: BinaryHeap<Reverse<(Ordered, Id)>>,
    workers: Vec<Queue>,
    pools: Vec<Queue>,
    lock: Queue,
    log: Queue,
    data: Queue,
    in_edge: usize,
    in_web: usize,
    idle: usize,
    locked: usize,
    statements: [usize; 2],
    reads: usize,
    tops: usize,
    sums: Sums,
    second: Counts,
    total: Counts,
    latencies: Vec<f64>,
}

#[derive(Debug, Default, Clone, Copy)]
struct Counts {
    done: f64,
    ok: f64,
    late: f64,
    shed: f64,
    statements: [f64; 2],
    tops: f64,
    rows: f64,
    too_late: f64,
}

const PRIMARY: usize = 0;
const REPLICAS: usize = 1;

impl<'a> Run<'a> {
    pub fn new(model: &'a Model, seed: u64) -> Run<'a> {
        let limit = |limit: Option<f64>| limit.unwrap_or(f64::INFINITY);
        let mut processors = vec![Processors::new(limit(model.edge_limit), None)];
        let web = |_| Processors::new(limit(model.web_limit), model.web_threads);
        processors.extend((0..model.instances).map(web));
        processors.extend((0..=model.replicas).map(|_| Processors::new(limit(model.database_limit), None)));
        Run {
            model,
            chance: Chance::new(seed),
            now: 0.0,
            requests: Vec::new(),
            free: Vec::new(),
            processors,
            timers: BinaryHeap::new(),
            workers: (0..model.instances).map(|_| Queue::new(model.workers.unwrap_or(usize::MAX))).collect(),
            pools: (0..=model.replicas).map(|_| Queue::new(model.pool)).collect(),
            lock: Queue::new(1),
            log: Queue::new(1),
            data: Queue::new(2),
            in_edge: 0,
            in_web: 0,
            idle: 0,
            locked: 0,
            statements: [0; 2],
            reads: 0,
            tops: 0,
            sums: Sums::default(),
            second: Counts::default(),
            total: Counts::default(),
            latencies: Vec::new(),
        }
    }

    pub fn step(&mut self, rate: f64, seconds: u32) -> Step {
        let mut tiers: BTreeMap<&str, Vec<TierSecond>> = BTreeMap::new();
        let mut next_arrival = self.now + self.chance.exponential(1.0 / rate);
        let mut offered = 0.0;
        for at in 0..seconds {
            if at == SETTLES {
                (self.total, offered) = (Counts::default(), 0.0);
                self.latencies.clear();
            }
            self.second = Counts::default();
            self.sums = Sums::default();
            let began = self.now;
            let look = began + self.chance.unit();
            let mut looked = false;
            let end = began + 1.0;
            while self.now < end {
                let processed = self.next_processed();
                let timer = self.timers.peek().map(|Reverse((at, _))| at.0);
                let next = [Some(end), Some(next_arrival), processed.map(|(at, _)| at), timer]
                    .into_iter()
                    .flatten()
                    .chain((!looked).then_some(look))
                    .fold(f64::INFINITY, f64::min);
                self.advance(next);
                if !looked && next == look {
                    looked = true;
                    self.look();
                } else if next == end {
                    break;
                } else if next == next_arrival {
                    offered += 1.0;
                    self.arrive();
                    next_arrival = self.now + self.chance.exponential(1.0 / rate);
                } else if timer == Some(next) {
                    let Reverse((_, id)) = self.timers.pop().expect("it was seen");
                    self.moved_on(id);
                } else if let Some((_, process)) = processed {
                    let Reverse((_, id)) = self.processors[process].jobs.pop().expect("it was seen");
                    self.moved_on(id);
                }
                self.share();
            }
            for (name, second) in self.measured(at) {
                tiers.entry(name).or_default().push(second);
            }
        }
        let counted = f64::from(seconds - SETTLES);
        self.latencies.sort_by(f64::total_cmp);
        let quantile = |q: f64| {
            let at = (self.latencies.len() as f64 * q) as usize;
            self.latencies.get(at.min(self.latencies.len().saturating_sub(1))).copied().unwrap_or(0.0)
        };
        let windows = tiers.into_iter().filter_map(|(name, seconds_of)| {
            let tier = Tier { name: name.to_owned(), seconds: seconds_of };
            Some((name.to_owned(), Window::of(&tier, SETTLES, seconds)?))
        });
        let p99 = quantile(0.99);
        let (failed, shed) =
            (self.total.late / f64::max(offered, 1.0), self.total.shed / f64::max(offered, 1.0));
        let mut missed = Vec::new();
        if p99 > MOST_P99 {
            missed.push(format!("a p99 of {:.0} ms", p99 * 1_000.0));
        }
        if failed + shed > MOST_LOST {
            missed.push(format!("{:.1} % lost", (failed + shed) * 100.0));
        }
        Step {
            offered: offered / counted,
            achieved: self.total.ok / counted,
            p50_us: (quantile(0.5) * 1e6) as u64,
            p99_us: (p99 * 1e6) as u64,
            failed,
            shed,
            missed,
            tiers: windows.collect(),
            faults: Vec::new(),
            unseen: 0.0,
        }
    }

    fn next_processed(&self) -> Option<(f64, usize)> {
        let finish = |(number, process): (usize, &Processors)| {
            let Reverse((at, _)) = process.jobs.peek()?;
            let each = process.rate / process.jobs.len() as f64;
            Some((self.now + ((at.0 - process.virtual_time) / each).max(0.0), number))
        };
        self.processors.iter().enumerate().filter_map(finish).min_by(|a, b| a.0.total_cmp(&b.0))
    }

    /// Lets time pass, and sums what was.
    fn advance(&mut self, to: f64) {
        let dt = to - self.now;
        self.now = to;
        let cores = self.model.machine_cores;
        let wanted: f64 = self.processors.iter().map(Processors::wants).sum();
        for process in &mut self.processors {
            if process.jobs.is_empty() {
                continue;
            }
            process.virtual_time += dt * process.rate / process.jobs.len() as f64;
            process.used += dt * process.rate;
            if process.runnable() > process.limit {
                process.held_back += dt;
            }
        }
        let pressed = wanted + self.model.foreign > cores;
        let waiting: usize = self.pools[1..].iter().map(|pool| pool.waiting.len()).sum();
        let busy = self.model.pool - self.pools[0].free;
        let sums = &mut self.sums;
        let mut add = |tier, name, value: f64| sums.add(tier, name, value * dt);
        add(tier::MACHINE, more::PRESSURE_CPU, f64::from(u8::from(pressed)));
        add(tier::EDGE, "in_flight", self.in_edge as f64);
        add(tier::WEB, "in_flight", self.in_web as f64);
        add(tier::PROXY, "waiting", self.pools[0].waiting.len() as f64);
        add(tier::PROXY, more::POOL_BUSY, busy as f64);
        add(tier::PRIMARY, "in_flight", self.statements[PRIMARY] as f64);
        add(tier::PRIMARY, more::READS_IN_FLIGHT, self.reads as f64);
        // What locks or writes its log is one statement, too.
        let writes = self.statements[PRIMARY] - self.reads;
        add(tier::PRIMARY, more::TOP_IN_FLIGHT, self.tops.max(writes) as f64);
        add(tier::REPLICAS, "in_flight", self.statements[REPLICAS] as f64);
        add(tier::REPLICAS, "waiting", waiting as f64);
    }

    /// Gives each process its processors: evenly, each no more than it wants.
    fn share(&mut self) {
        let mut left = self.model.machine_cores - self.model.foreign;
        let mut order: Vec<usize> = (0..self.processors.len()).collect();
        order.sort_by(|a, b| self.processors[*a].wants().total_cmp(&self.processors[*b].wants()));
        let mut others = order.len() as f64;
        for number in order {
            let process = &mut self.processors[number];
            process.rate = process.wants().min(left / others);
            left -= process.rate;
            others -= 1.0;
        }
    }

    fn arrive(&mut self) {
        if self.in_edge >= MOST {
            self.total.shed += 1.0;
            return;
        }
        let writes = self.chance.is(self.model.writes);
        let request = Request {
            arrived: self.now,
            at: At::Edge,
            writes,
            is_top: !writes && self.chance.is(self.model.top),
            instance: (self.chance.unit() * self.model.instances as f64) as usize,
            replica: None,
        };
        let id = self.free.pop().unwrap_or_else(|| {
            self.requests.push(request);
            self.requests.len() - 1
        });
        self.requests[id] = request;
        self.in_edge += 1;
        self.work(id, self.model.edge(), self.model.edge_cpu);
    }

    fn work(&mut self, id: Id, process: usize, mean: f64) {
        // Half of it is the same for all: real work varies, but not as wildly as an exponential.
        let work = mean * 0.5 + self.chance.exponential(mean * 0.5);
        let process = &mut self.processors[process];
        process.jobs.push(Reverse((Ordered(process.virtual_time + work), id)));
    }

    fn wait(&mut self, id: Id, mean: f64) {
        let lasts = mean * 0.5 + self.chance.exponential(mean * 0.5);
        self.timers.push(Reverse((Ordered(self.now + lasts), id)));
    }

    fn put(&mut self, id: Id, at: At) {
        self.requests[id].at = at;
    }

    /// The request has done what it was at.
    fn moved_on(&mut self, id: Id) {
        let Request { at, instance, writes, .. } = self.requests[id];
        match at {
            At::Edge => {
                if self.model.refuses_at.is_some_and(|at| self.in_web >= at) {
                    self.total.shed += 1.0;
                    self.in_edge -= 1;
                    self.free.push(id);
                    return;
                }
                self.in_web += 1;
                self.put(id, At::Worker);
                if self.workers[instance].enter(id) {
                    self.moved_on(id);
                }
            }
            At::Worker => {
                self.put(id, At::WebBefore);
                self.work(id, 1 + instance, self.model.web_cpu / 2.0);
            }
            At::WebBefore => {
                self.put(id, At::Outside);
                self.wait(id, self.model.outside);
            }
            At::Outside => {
                self.put(id, At::Connection);
                if !writes && self.model.replicas > 0 {
                    if self.chance.is(self.model.fresh) {
                        let number = (self.chance.unit() * self.model.replicas as f64) as usize;
                        self.requests[id].replica = Some(number);
                    } else {
                        self.second.too_late += 1.0;
                    }
                }
                let pool = self.requests[id].replica.map_or(0, |number| 1 + number);
                if self.pools[pool].enter(id) {
                    self.moved_on(id);
                }
            }
            At::Connection => {
                self.begin_statement(id);
                if writes && self.model.locked > 0.0 {
                    self.put(id, At::Lock);
                    if self.lock.enter(id) {
                        self.moved_on(id);
                    }
                } else if !writes && self.model.data > 0.0 && self.requests[id].replica.is_none() {
                    self.put(id, At::Data);
                    if self.data.enter(id) {
                        self.wait(id, self.model.data);
                    }
                } else {
                    self.statement(id);
                }
            }
            At::Lock => self.statement(id),
            At::Data => {
                if let Some(next) = self.data.leave() {
                    self.wait(next, self.model.data);
                }
                self.statement(id);
            }
            At::Statement if writes => {
                self.put(id, At::Locked);
                self.locked += 1;
                self.wait(id, self.model.locked);
            }
            At::Statement => self.end_statement(id),
            At::Locked => {
                self.locked -= 1;
                if self.model.locked > 0.0
                    && let Some(next) = self.lock.leave()
                {
                    self.moved_on(next);
                }
                self.put(id, At::Log);
                if self.log.enter(id) {
                    self.wait(id, self.model.log);
                }
                for number in 0..self.model.replicas {
                    // Replay is work of the replica that no request waits for.
                    let replayed = self.model.write_cpu * self.model.replay;
                    self.processors[self.model.replica(number)].used += replayed;
                }
            }
            At::Log => {
                if let Some(next) = self.log.leave() {
                    self.wait(next, self.model.log);
                }
                self.end_statement(id);
            }
            At::Idle => {
                self.idle -= 1;
                let pool = self.requests[id].replica.map_or(0, |number| 1 + number);
                if let Some(next) = self.pools[pool].leave() {
                    self.moved_on(next);
                }
                self.put(id, At::WebAfter);
                self.work(id, 1 + instance, self.model.web_cpu / 2.0);
            }
            At::WebAfter => {
                self.put(id, At::Gone);
                if let Some(next) = self.workers[instance].leave() {
                    self.moved_on(next);
                }
                self.end(id);
            }
            At::Gone => unreachable!("it is gone"),
        }
    }

    fn side(&self, id: Id) -> usize {
        if self.requests[id].replica.is_some() { REPLICAS } else { PRIMARY }
    }

    fn begin_statement(&mut self, id: Id) {
        let side = self.side(id);
        self.statements[side] += 1;
        let Request { writes, is_top, .. } = self.requests[id];
        if side == PRIMARY && !writes {
            self.reads += 1;
            self.tops += usize::from(is_top);
        }
    }

    fn statement(&mut self, id: Id) {
        self.put(id, At::Statement);
        let Request { writes, replica, .. } = self.requests[id];
        let process = replica.map_or(self.model.primary(), |number| self.model.replica(number));
        self.work(id, process, if writes { self.model.write_cpu } else { self.model.read_cpu });
    }

    fn end_statement(&mut self, id: Id) {
        let side = self.side(id);
        let Request { writes, is_top, .. } = self.requests[id];
        self.statements[side] -= 1;
        self.second.statements[side] += 1.0;
        if side == PRIMARY && !writes {
            self.reads -= 1;
            self.tops -= usize::from(is_top);
            self.second.tops += f64::from(u8::from(is_top));
            self.second.rows += if is_top { self.model.rows } else { 20.0 };
        }
        self.put(id, At::Idle);
        self.idle += 1;
        self.wait(id, self.model.idle_in_transaction);
    }

    fn end(&mut self, id: Id) {
        let latency = self.now - self.requests[id].arrived;
        self.in_web -= 1;
        self.in_edge -= 1;
        self.second.done += 1.0;
        if latency > PATIENCE {
            self.total.late += 1.0;
        } else {
            self.total.ok += 1.0;
            self.latencies.push(latency);
        }
        self.free.push(id);
    }

    /// What `pg_stat_activity` shows at this moment.
    fn look(&mut self) {
        let model = self.model;
        let primary = &self.processors[model.primary()];
        let running = primary.jobs.len() as f64;
        let log = (self.log.waiting.len() + usize::from(self.log.free == 0)) as f64;
        let data = (self.data.waiting.len() + 2 - self.data.free) as f64;
        for (name, value) in [
            // Whoever holds the lock works on something.
            (more::SESSIONS_RUNNING, running + self.locked as f64),
            (more::SESSIONS_LOCKED, self.lock.waiting.len() as f64),
            (more::SESSIONS_LOG, log),
            (more::SESSIONS_DATA_IO, data),
            (more::SESSIONS_IDLE_IN_TRANSACTION, self.idle as f64),
        ] {
            self.sums.add(tier::PRIMARY, name, value);
        }
    }

    fn measured(&mut self, at: u32) -> Vec<(&'static str, TierSecond)> {
        let model = self.model;
        let mut rows = Vec::new();
        let mut of = |name: &'static str, from: usize, count: usize, limit: Option<f64>, done: f64| {
            let processes = &mut self.processors[from..from + count];
            let cpu: f64 = processes.iter().map(|process| process.used).sum();
            let held_back: f64 = processes.iter().map(|process| process.held_back).sum();
            for process in processes {
                (process.used, process.held_back) = (0.0, 0.0);
            }
            let second = TierSecond {
                at,
                members: count as u32,
                cpu: cpu * self.chance.about_one(),
                cpu_allowed: limit.map_or(model.machine_cores, |limit| limit * count as f64),
                throttled: if count > 0 { held_back / count as f64 } else { 0.0 },
                done,
                ..TierSecond::default()
            };
            rows.push((name, second));
        };
        of(tier::EDGE, 0, 1, model.edge_limit, self.second.done);
        of(tier::WEB, 1, model.instances, model.web_limit, self.second.done);
        of(tier::PRIMARY, model.primary(), 1, model.database_limit, self.second.statements[PRIMARY]);
        if model.replicas > 0 {
            let done = self.second.statements[REPLICAS];
            of(tier::REPLICAS, model.replica(0), model.replicas, model.database_limit, done);
        }
        let used: f64 = rows.iter().map(|(_, second)| second.cpu).sum();
        rows.push((tier::PROXY, TierSecond { at, members: 1, cpu: 0.01, ..TierSecond::default() }));
        let machine = TierSecond {
            at,
            members: 1,
            cpu: used + model.foreign,
            cpu_allowed: model.machine_cores,
            ..TierSecond::default()
        };
        rows.push((tier::MACHINE, machine));
        for ((name, measure), value) in &self.sums.values {
            let Some((_, second)) = rows.iter_mut().find(|(of, _)| of == name) else { continue };
            match *measure {
                "in_flight" => second.in_flight = *value,
                "waiting" => second.waiting = *value,
                measure => {
                    second.more.insert(measure.to_owned(), *value);
                }
            }
        }
        let counts = self.second;
        for (name, measure, value) in [
            (tier::MACHINE, more::FOREIGN_CPU, model.foreign),
            (tier::PROXY, more::POOL_SIZE, model.pool as f64),
            (tier::PRIMARY, more::TOP_DONE, counts.tops),
            (tier::PRIMARY, more::ROWS_READ, counts.rows),
            (
                tier::PRIMARY,
                more::PAGES_READ,
                if model.data > 0.0 { counts.statements[PRIMARY] } else { 0.0 },
            ),
            (tier::PRIMARY, more::PAGES_HIT, 5.0 * counts.statements[PRIMARY]),
            (tier::REPLICAS, more::READS_TOO_LATE, counts.too_late),
        ] {
            if let Some((_, second)) = rows.iter_mut().find(|(of, _)| *of == name) {
                second.more.insert(measure.to_owned(), value);
            }
        }
        rows
    }
}
