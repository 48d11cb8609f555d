//! Each resource that may have given way, with its score.
//!
//! A score is half how full it is, three tenths the share of the added latency that waits for it, two tenths what says that
//! it is held up. The weights are those of the house's research, and are held by the suite of injected faults
//! (`tests/faults`).
//!
//! What works (processors, disks) is told from what is only held (workers, connections): the latter is as full when what it
//! waits for is full. So it is a candidate by as much as nothing behind it is.

use super::evidence::{Window, more, tier};
use super::knee::Knee;
use super::{Cause, Kind, MACHINE_FULL, Shape, Staircase, Step, say};

/// From here on a resource adds waits of its own, and up to [`SURELY`] it is more and more likely to be what is waited for.
const PERHAPS: f64 = 0.6;
const SURELY: f64 = 0.9;
/// Of a full machine: whoever uses so much of what the app uses is what fills it.
const MOST: f64 = 0.6;
/// Statements that only read, of the time of all: from here on reads are what fills a primary.
const READ_HEAVY: f64 = 0.6;
/// Of one statement, of the time of all.
const ONE_STATEMENT: f64 = 0.4;
/// Rows that scans return for each run of a statement: an index returns what is asked for, a scan all there is.
const MANY_ROWS: f64 = 10_000.0;
/// Reads that no replica was fresh enough for, of all that are for replicas.
const MANY_TOO_LATE: f64 = 0.2;
/// Refused, of what was asked.
const REFUSED: f64 = 0.01;

/// A resource that may be what gave way.
#[derive(Debug, Clone)]
pub(super) struct Candidate {
    pub(super) tier: &'static str,
    pub(super) kind: Kind,
    pub(super) score: f64,
    pub(super) utilisation: f64,
    /// Does work, and is not merely held while others do theirs.
    pub(super) is_working: bool,
    /// The figure that says most, for the sentence.
    pub(super) because: String,
}

impl Candidate {
    pub(super) fn cause(&self) -> Cause {
        Cause {
            tier: self.tier.to_owned(),
            kind: self.kind,
            score: self.score,
            utilisation: self.utilisation,
        }
    }
}

/// Seconds that a request spends in each part on average, by Little's law.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Residence {
    /// In front of the edge and in it.
    pub(super) edge: f64,
    /// In the app, and in front of it, without the database.
    pub(super) web: f64,
    /// Waiting for a connection.
    pub(super) pool: f64,
    pub(super) primary: f64,
    pub(super) replicas: f64,
}

impl Residence {
    pub(super) fn of(step: &Step) -> Residence {
        let rate = step.rate();
        if rate <= 0.0 {
            return Residence::default();
        }
        let under_way = |name| step.tier(name).in_flight;
        let (edge, web) = (under_way(tier::EDGE), under_way(tier::WEB));
        let (primary, replicas) = (under_way(tier::PRIMARY), under_way(tier::REPLICAS));
        let pool = step.tier(tier::PROXY).waiting + step.tier(tier::REPLICAS).waiting;
        // What clients wait before the edge has even read their request is not in the edge's own figures.
        let before = (step.p50_us as f64 / 1e6 - edge / rate).max(0.0);
        Residence {
            edge: before + (edge - web).max(0.0) / rate,
            web: (web - pool - primary - replicas).max(0.0) / rate,
            pool: pool / rate,
            primary: primary / rate,
            replicas: replicas / rate,
        }
    }

    /// Of what `full` has more than `half`, the share of each part.
    fn added(half: &Step, full: &Step) -> Residence {
        let (half, full) = (Residence::of(half), Residence::of(full));
        let more = |read: fn(&Residence) -> f64| (read(&full) - read(&half)).max(0.0);
        let parts = Residence {
            edge: more(|r| r.edge),
            web: more(|r| r.web),
            pool: more(|r| r.pool),
            primary: more(|r| r.primary),
            replicas: more(|r| r.replicas),
        };
        let sum = parts.edge + parts.web + parts.pool + parts.primary + parts.replicas;
        if sum <= 0.0 {
            return Residence::default();
        }
        Residence {
            edge: parts.edge / sum,
            web: parts.web / sum,
            pool: parts.pool / sum,
            primary: parts.primary / sum,
            replicas: parts.replicas / sum,
        }
    }
}

/// How full a tier's processors are, and why that is said.
#[derive(Debug, Clone, Copy, Default)]
struct Filled {
    utilisation: f64,
    /// How much of the time it is held up, from 0 to 1.
    held_up: f64,
    /// Where the machine is what is full: how much of what waits, wherever it does, waits for this tier.
    of_machine: f64,
}

impl Filled {
    /// On a full machine who waits for a core says nothing about who has it.
    fn waited(&self, added: f64) -> f64 {
        added.max(self.of_machine)
    }
}

/// From 0 where a resource is surely not what is waited for, to 1 where it surely is.
fn saturation(utilisation: f64) -> f64 {
    ((utilisation - PERHAPS) / (SURELY - PERHAPS)).clamp(0.0, 1.0)
}

fn score(utilisation: f64, waited: f64, held_up: f64) -> f64 {
    0.5 * utilisation.clamp(0.0, 1.0) + 0.3 * waited.clamp(0.0, 1.0) + 0.2 * held_up.clamp(0.0, 1.0)
}

/// The tiers whose processors are the app's.
const APP_TIERS: [&str; 6] =
    [tier::EDGE, tier::WEB, tier::PROXY, tier::PRIMARY, tier::STANDBYS, tier::REPLICAS];

fn filled(step: &Step, shape: &Shape, name: &str) -> Filled {
    let machine = step.tier(tier::MACHINE);
    let window = step.tier(name);
    let cores = shape.machine_cores;
    let allowed = if window.cpu_allowed > 0.0 { window.cpu_allowed.min(cores) } else { cores };
    let own = Filled { utilisation: window.cpu / allowed, held_up: window.throttled, of_machine: 0.0 };
    let of_machine = machine.cpu / cores;
    if of_machine < MACHINE_FULL {
        return own;
    }
    // On a full machine whoever asks for most of it is waited for most.
    let all: f64 = APP_TIERS.iter().map(|name| step.tier(name).cpu).sum();
    let weight = if all > 0.0 { (window.cpu / all / MOST).min(1.0) } else { 0.0 };
    let pressure = machine.more(more::PRESSURE_CPU).unwrap_or(0.0);
    let shared = Filled { utilisation: of_machine * weight, held_up: pressure * weight, of_machine: weight };
    if own.utilisation >= shared.utilisation { own } else { shared }
}

/// What sessions of the primary wait for, as shares of those that do anything.
#[derive(Debug, Clone, Copy, Default)]
struct Sessions {
    /// How many do anything.
    active: f64,
    running: f64,
    locked: f64,
    data: f64,
    log: f64,
}

impl Sessions {
    fn of(primary: &Window) -> Sessions {
        let read = |name| primary.more(name).unwrap_or(0.0);
        let (running, locked) = (read(more::SESSIONS_RUNNING), read(more::SESSIONS_LOCKED));
        let (data, log) = (read(more::SESSIONS_DATA_IO), read(more::SESSIONS_LOG));
        let active = running + locked + data + log;
        // Of one session now and then nothing can be said.
        if active < 0.5 {
            return Sessions { active, ..Sessions::default() };
        }
        Sessions {
            active,
            running: running / active,
            locked: locked / active,
            data: data / active,
            log: log / active,
        }
    }
}

/// All candidates at the knee, in no order.
pub(super) fn score_all(staircase: &Staircase, knee: &Knee) -> Vec<Candidate> {
    let Staircase { shape, .. } = staircase;
    let (half, full) = (knee.half, knee.full);
    let added = Residence::added(half, full);
    let fill = |name| filled(full, shape, name);
    let (edge, web, proxy) = (fill(tier::EDGE), fill(tier::WEB), fill(tier::PROXY));
    let (primary, replicas) = (fill(tier::PRIMARY), fill(tier::REPLICAS));
    let thread = thread(full, shape);
    let web_full = saturation(web.utilisation.max(thread));
    let window = full.tier(tier::PRIMARY);
    let sessions = Sessions::of(&window);
    let waits = Waits::of(sessions, &primary, &window, full);
    let database_full = [primary.utilisation, replicas.utilisation, waits.locked, waits.data, waits.log]
        .map(saturation)
        .into_iter()
        .fold(0.0, f64::max);
    let pool = pool(full, database_full);
    // What waits upstream waits for this, unless something there is full itself.
    let before_web = added.edge * (1.0 - saturation(edge.utilisation));
    let before_database = before_web + added.web * (1.0 - web_full);
    let for_primary = before_database + added.pool + added.primary;

    let mut all = Vec::new();
    let mut add = |tier, kind, utilisation: f64, waited: f64, held_up: f64, is_working, because: String| {
        let score = score(utilisation, waited, held_up);
        let utilisation = utilisation.min(1.0);
        all.push(Candidate { tier, kind, score, utilisation, is_working, because });
    };
    let because = cpu(full, shape, tier::EDGE);
    add(tier::EDGE, Kind::EdgeCpu, edge.utilisation, edge.waited(added.edge), edge.held_up, true, because);
    let (waited, because) = (proxy.waited(before_database + added.pool), cpu(full, shape, tier::PROXY));
    add(tier::PROXY, Kind::ProxyCpu, proxy.utilisation, waited, proxy.held_up, true, because);
    if thread > web.utilisation {
        let because = format!("each instance uses {} of one core and may use more", say::percent(thread));
        add(tier::WEB, Kind::WebThread, thread, before_web + added.web, thread, true, because);
    } else {
        let (waited, because) = (web.waited(before_web + added.web), cpu(full, shape, tier::WEB));
        add(tier::WEB, Kind::WebCpu, web.utilisation, waited, web.held_up, true, because);
    }
    if full.tiers.contains_key(tier::PRIMARY) {
        let kind = of_primary(full, replicas.utilisation);
        let queued = queued(sessions, &window, shape);
        let (held_up, because) = (primary.held_up.max(queued), cpu(full, shape, tier::PRIMARY));
        let waited = primary.waited(for_primary);
        add(tier::PRIMARY, kind, primary.utilisation, waited, held_up, true, because);
        for (kind, share, of) in [
            (Kind::Locks, waits.locked, "a lock"),
            (Kind::DataDisk, waits.data, "data from its disk"),
            (Kind::LogDisk, waits.log, "commits to be safe"),
        ] {
            let because = format!(
                "{} of {} busy sessions wait for {of}",
                say::percent(share),
                say::figure(sessions.active)
            );
            add(tier::PRIMARY, kind, share, for_primary, share, true, because);
        }
    }
    if full.tiers.contains_key(tier::REPLICAS) {
        let waited = replicas.waited(before_database + added.pool + added.replicas);
        let because = cpu(full, shape, tier::REPLICAS);
        add(tier::REPLICAS, Kind::ReplicaCpu, replicas.utilisation, waited, replicas.held_up, true, because);
    }
    if let Some(pool) = &pool {
        let (utilisation, waited) = (pool.counts, before_database + added.pool);
        add(
            tier::PROXY,
            Kind::Pool,
            utilisation,
            waited * pool.counts,
            pool.held_up,
            false,
            pool.because.clone(),
        );
    }
    let behind = [web_full, database_full, pool.map_or(0.0, |pool| saturation(pool.counts))];
    let workers = workers(knee, added, before_web, behind.into_iter().fold(0.0, f64::max), shape);
    let Workers { utilisation, waited, held_up, because } = workers;
    add(tier::WEB, Kind::WebWorkers, utilisation, waited, held_up, false, because);
    all.extend(limit(full, shape));
    all
}

fn cpu(step: &Step, shape: &Shape, name: &str) -> String {
    let (window, machine) = (step.tier(name), step.tier(tier::MACHINE));
    let cores = shape.machine_cores;
    if window.cpu_allowed > 0.0 && window.cpu_allowed < cores {
        let held = if window.throttled >= 0.05 {
            format!(", and is held back in {} of the time", say::percent(window.throttled))
        } else {
            String::new()
        };
        return format!(
            "it uses {} of the {} it may use{held}",
            say::figure(window.cpu),
            say::cores(window.cpu_allowed)
        );
    }
    format!(
        "it uses {} of the machine's {}, which are {} in use",
        say::figure(window.cpu),
        say::cores(cores),
        say::percent(machine.cpu / cores)
    )
}

/// How full one core is in each instance, where an instance may use more than one; 0 elsewhere.
fn thread(step: &Step, shape: &Shape) -> f64 {
    let window = step.tier(tier::WEB);
    let each = shape.web_cores.unwrap_or(shape.machine_cores).min(shape.machine_cores);
    // With less than half a core more, or where others leave it none, it is not its thread that holds it back.
    let is_full = step.tier(tier::MACHINE).cpu >= MACHINE_FULL * shape.machine_cores;
    if each < 1.5 || is_full || window.members < 1.0 {
        return 0.0;
    }
    let used = window.cpu / window.members;
    // More than one core cannot be one thread.
    if used > 1.1 { 0.0 } else { used.min(1.0) }
}

/// Waits of sessions count by as much as the primary does not simply work.
struct Waits {
    locked: f64,
    data: f64,
    log: f64,
}

impl Waits {
    fn of(sessions: Sessions, primary: &Filled, window: &Window, step: &Step) -> Waits {
        // Beside running sessions, those of a full primary wait as well; then it is the processors.
        let idle = 1.0 - saturation(primary.utilisation);
        let reads = window.more(more::PAGES_READ).unwrap_or(0.0);
        let hits = window.more(more::PAGES_HIT).unwrap_or(0.0);
        let missed = if reads + hits > 0.0 { reads / (reads + hits) } else { 0.0 };
        let pressure = step.tier(tier::MACHINE).more(more::PRESSURE_IO).unwrap_or(0.0);
        // Reading much is what a lack of memory looks like; waiting long for little is a slow disk.
        let is_disk = missed > 0.05 || pressure > 0.2;
        Waits {
            locked: sessions.locked * idle,
            data: if is_disk { sessions.data * idle } else { 0.0 },
            log: sessions.log * idle,
        }
    }
}

/// How many of the primary's running sessions have no core to run on, from 0 to 1.
fn queued(sessions: Sessions, window: &Window, shape: &Shape) -> f64 {
    let cores = if window.cpu_allowed > 0.0 { window.cpu_allowed } else { shape.machine_cores };
    let running = sessions.running * sessions.active;
    if running > cores { 1.0 - cores / running } else { 0.0 }
}

/// Which row it is when the primary's processors are full. The first that fits.
fn of_primary(step: &Step, replicas_full: f64) -> Kind {
    let (primary, replicas) = (step.tier(tier::PRIMARY), step.tier(tier::REPLICAS));
    let too_late = replicas.more(more::READS_TOO_LATE).unwrap_or(0.0);
    if too_late > MANY_TOO_LATE * (too_late + replicas.done) && replicas_full < PERHAPS {
        return Kind::ReplicaLag;
    }
    let all = primary.in_flight;
    let of_all = |name| if all > 0.0 { primary.more(name).unwrap_or(0.0) / all } else { 0.0 };
    let runs = primary.more(more::TOP_DONE).unwrap_or(0.0);
    let rows = primary.more(more::ROWS_READ).unwrap_or(0.0);
    if of_all(more::TOP_IN_FLIGHT) >= ONE_STATEMENT && runs > 0.0 && rows / runs > MANY_ROWS {
        return Kind::MissingIndex;
    }
    if of_all(more::READS_IN_FLIGHT) >= READ_HEAVY { Kind::PrimaryReads } else { Kind::PrimaryWrites }
}

#[derive(Clone)]
struct PoolUse {
    /// How full, by as much as nothing behind it is.
    counts: f64,
    held_up: f64,
    because: String,
}

fn pool(step: &Step, database_full: f64) -> Option<PoolUse> {
    let proxy = step.tier(tier::PROXY);
    let (size, busy) = (proxy.more(more::POOL_SIZE)?, proxy.more(more::POOL_BUSY)?);
    let counts = if size > 0.0 { (busy / size).min(1.0) * (1.0 - database_full) } else { 0.0 };
    let waiting = proxy.waiting;
    let held_up = if waiting > 0.0 { waiting / (waiting + busy) * (1.0 - database_full) } else { 0.0 };
    let idle = step.tier(tier::PRIMARY).more(more::SESSIONS_IDLE_IN_TRANSACTION).unwrap_or(0.0);
    let doing_nothing = if idle >= 0.2 * size {
        format!(", {} of them within a transaction that asks for nothing", say::figure(idle))
    } else {
        String::new()
    };
    let because = format!(
        "{} of {} connections to the primary are taken{doing_nothing}, and {} clients wait for one",
        say::figure(busy),
        say::figure(size),
        say::figure(waiting)
    );
    Some(PoolUse { counts, held_up, because })
}

struct Workers {
    utilisation: f64,
    waited: f64,
    held_up: f64,
    because: String,
}

/// The app waits, and neither for processors nor for the database. What for is not seen from outside: `behind` says how
/// surely something else explains it.
fn workers(knee: &Knee, added: Residence, before_web: f64, behind: f64, shape: &Shape) -> Workers {
    let (half, full) = (knee.half, knee.full);
    let window = full.tier(tier::WEB);
    let counts = 1.0 - behind;
    // At a low load nobody waits for a worker: then a request holds one for as long as it is in the app.
    let holds = half.tier(tier::WEB).in_flight / half.rate().max(f64::MIN_POSITIVE);
    let at_once = full.rate() * holds;
    let is_short = full.achieved < 0.97 * full.offered;
    let known = shape.web_workers.map(|each| f64::from(each) * window.members);
    let taken = match known {
        Some(limit) if limit > 0.0 => (window.in_flight / limit).min(1.0),
        // Requests pile up in front of the app while it does not do more: so as many as it takes are in it.
        _ if is_short && window.in_flight > 1.5 * at_once => 1.0,
        _ => 0.0,
    };
    let piled = if window.in_flight > 0.0 { 1.0 - (at_once / window.in_flight).min(1.0) } else { 0.0 };
    let limit = match known {
        Some(limit) => format!("its {} workers are taken", say::figure(limit)),
        None => format!("it works on about {} requests at once and no more", say::figure(at_once.max(1.0))),
    };
    let because = format!("{limit}, of the {} that it was sent", say::figure(window.in_flight));
    Workers {
        utilisation: taken * counts,
        waited: (before_web + added.web) * counts,
        held_up: piled * counts,
        because,
    }
}

/// Refusals while nothing is full.
fn limit(step: &Step, shape: &Shape) -> Option<Candidate> {
    let refused = step.shed;
    let fullest = APP_TIERS.iter().map(|name| filled(step, shape, name).utilisation).fold(0.0, f64::max);
    let pool = step.tier(tier::PROXY);
    let waits_for_pool = pool.waiting > 0.5;
    (refused >= REFUSED && fullest < PERHAPS && !waits_for_pool).then(|| Candidate {
        tier: tier::EDGE,
        kind: Kind::LimitTooLow,
        score: 0.8,
        utilisation: 1.0,
        is_working: false,
        because: format!(
            "{} of the requests are refused while no tier's processors are more than {} full",
            say::percent(refused),
            say::percent(fullest)
        ),
    })
}
