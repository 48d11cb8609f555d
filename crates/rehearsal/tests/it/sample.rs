//! Records made up by a seed, of the size and shape of real ones: a front page over an app that nearly holds.

use std::collections::BTreeMap;

use rehearsal::record::{
    ClassSecond, Event, FailedRequests, Outcome, Record, Second, Tier, TierSecond, VERSION, Validity,
};

/// Of a class: requests a visit, median of its latency in µs at rest.
const CLASSES: &[(&str, f64, f64)] = &[
    ("page", 1.4, 9_000.0),
    ("asset", 15.0, 900.0),
    ("search", 0.1, 35_000.0),
    ("write", 0.05, 22_000.0),
    ("bot", 0.15, 8_000.0),
    ("missing", 0.1, 2_500.0),
];

/// Of a tier: what it may use in cores, and how much of that a request takes, in ms.
const TIERS: &[(&str, f64, f64)] = &[
    ("edge", 1.0, 0.06),
    ("web", 2.0, 3.6),
    ("pgproxy", 1.0, 0.09),
    ("primary", 2.0, 1.1),
    ("replicas", 2.0, 1.5),
];

/// Ramp, plateau with a burst, and a long way down, whatever it lasts.
pub fn front_page(seconds: u32, seed: u64) -> Record {
    let mut chance = fastrand::Rng::with_seed(seed);
    let course = (0..seconds).map(|at| second(at, seconds, &mut chance)).collect::<Vec<_>>();
    let tiers = TIERS.iter().map(|(name, allowed, cost)| tier(name, *allowed, *cost, &course, &mut chance));
    let tiers = tiers.collect();
    let moment = |part: f64| (f64::from(seconds) * part * 1_000.0) as u64;
    let event = |part, text: &str| Event { at_ms: moment(part), text: text.to_owned() };
    Record {
        version: VERSION,
        app: "shop".into(),
        shape: "stage 3, 4 web, 1 primary, 1 standby, 2 read replicas".into(),
        target: "https://127.0.0.1:8443".into(),
        profile: "front-page".into(),
        seed,
        began: "2026-03-01T12:00:00Z".parse().unwrap(),
        cut_short: None,
        validity: Validity {
            schedule_error_p99_us: 740,
            cpu_us_per_request: 17.3,
            cpu_share: 0.08,
            stolen: 0.0,
            not_offered: 0,
            faults: Vec::new(),
        },
        found: None,
        failed: vec![FailedRequests {
            path: "/?utm_source=news".into(),
            outcome: Outcome::Status,
            status: Some(404),
            count: 31,
        }],
        seconds: course,
        tiers,
        events: vec![
            event(0.18, "web.5 and web.6 are ready"),
            event(0.31, "primary db.1 is lost"),
            event(0.3105, "db.2 takes over, epoch 7"),
            event(0.7, "web.6 is drained and stopped"),
        ],
    }
}

fn second(at: u32, of: u32, chance: &mut fastrand::Rng) -> Second {
    let part = f64::from(at) / f64::from(of);
    let (phase, wished) = match part {
        p if p < 0.1 => ("base", 2.0),
        p if p < 0.16 => ("ramp", 2.0 + (p - 0.1) / 0.06 * 23.0),
        p if p < 0.3 => ("plateau", 25.0),
        p if p < 0.32 => ("burst", 37.5),
        p if p < 0.48 => ("plateau", 25.0),
        p => ("decay", 25.0 * 0.5_f64.powf((p - 0.48) / 0.16)),
    };
    let visits = (wished * (1.0 + 0.12 * normal(chance))).max(0.0).round() as u32;
    let load = f64::from(visits) / 36.0;
    let crowded = (1.0 - load.min(0.95)).recip();
    let classes = CLASSES.iter().map(|&(name, each, median)| {
        let sent = (f64::from(visits) * each + chance.f64()) as u32;
        (name.to_owned(), class(sent, median * crowded, load, chance))
    });
    let classes: BTreeMap<_, _> = classes.collect();
    Second {
        at,
        phase: phase.to_owned(),
        wished_visits: rounded(wished),
        visits,
        visitors: visits * 13,
        connections: visits * 6,
        classes,
    }
}

fn class(sent: u32, median: f64, load: f64, chance: &mut fastrand::Rng) -> ClassSecond {
    let mut outcomes: BTreeMap<Outcome, u32> = BTreeMap::new();
    let mut latency: BTreeMap<u64, u32> = BTreeMap::new();
    let mut service: BTreeMap<u64, u32> = BTreeMap::new();
    for _ in 0..sent {
        let outcome = match chance.f64() {
            x if load > 0.98 && x < 0.05 => Outcome::Shed,
            x if load > 1.05 && x < 0.056 => Outcome::GaveUp,
            x if x < 0.000_02 => Outcome::Status,
            _ => Outcome::Ok,
        };
        *outcomes.entry(outcome).or_default() += 1;
        if outcome == Outcome::GaveUp {
            continue;
        }
        // One in thirty misses a cache.
        let slower = if chance.f64() < 0.03 { 9.0 } else { 1.0 };
        let took = median * slower * (0.45 * normal(chance)).exp();
        let held_up = 40.0 * (0.8 * normal(chance)).exp();
        *latency.entry(bucket((took + held_up) as u64)).or_default() += 1;
        *service.entry(bucket(took as u64)).or_default() += 1;
    }
    ClassSecond {
        sent,
        outcomes,
        latency: latency.into_iter().collect(),
        service: service.into_iter().collect(),
        latency_not_ok: BTreeMap::new(),
    }
}

/// The upper bound of a histogram's bucket with two significant digits.
fn bucket(us: u64) -> u64 {
    let shift = (64 - us.leading_zeros()).saturating_sub(8);
    us | ((1 << shift) - 1)
}

/// To thousandths, which are read from JSON as they were written.
fn rounded(figure: f64) -> f64 {
    (figure * 1_000.0).round() / 1_000.0
}

fn normal(chance: &mut fastrand::Rng) -> f64 {
    let radius = (-2.0 * (1.0 - chance.f64()).ln()).sqrt();
    radius * (std::f64::consts::TAU * chance.f64()).cos()
}

fn tier(name: &str, allowed: f64, cost_ms: f64, course: &[Second], chance: &mut fastrand::Rng) -> Tier {
    let seconds = course.iter().map(|second| {
        let done = f64::from(second.classes.values().map(|class| class.sent).sum::<u32>());
        let wish = done * cost_ms / 1_000.0 * (1.0 + 0.05 * normal(chance)) + 0.004;
        let cpu = wish.clamp(0.0, allowed);
        let used = cpu / allowed;
        TierSecond {
            at: second.at,
            members: if name == "web" && used > 0.8 { 6 } else { 2 },
            cpu: rounded(cpu),
            cpu_allowed: allowed,
            throttled: rounded((used - 0.9).max(0.0) * 5.0),
            in_flight: rounded(used / (1.02 - used) * 3.0),
            waiting: rounded((used - 0.8).max(0.0) * 60.0),
            done,
            errors: 0.0,
            more: more(name, used, chance),
        }
    });
    Tier { name: name.to_owned(), seconds: seconds.collect() }
}

fn more(name: &str, used: f64, chance: &mut fastrand::Rng) -> BTreeMap<String, f64> {
    let figures: &[(&str, f64)] = match name {
        "replicas" => &[("lag_ms", 4.0 + 60.0 * used)],
        "pgproxy" => &[("pool_wait_us", 30.0 + 5_000.0 * used * used)],
        "primary" => &[("active_sessions", 0.2 + 6.0 * used)],
        _ => &[],
    };
    let jitter = 1.0 + 0.2 * chance.f64();
    figures.iter().map(|(name, figure)| ((*name).to_owned(), rounded(figure * jitter))).collect()
}
