//! Whether a generator did what it was told, from what it used and what it missed.

use std::time::Duration;

use super::clock::Clock;
use super::recorder::Totals;
use crate::histogram::Histogram;
use crate::record::Validity;

/// What a person would not notice.
const SCHEDULE_ERROR_P99: Duration = Duration::from_millis(5);
/// Of the slowest answers (p99), so much may be ours where that is more: an app that takes seconds looks no slower for
/// some milliseconds. A latency counts from the intended moment, so it has the error in it. Of what the app is judged by, as much,
/// where the slowest answers are faster by more than the error: they are fast enough with it and without.
const SCHEDULE_ERROR_OF_LATENCY: f64 = 0.05;
/// Of fewer requests the latest in a hundred are one or two, which is chance, and not a machine that is too busy.
const FEW: u64 = 200;
/// Of the machine's processor time. The app has then had another machine than the one it will have.
const STOLEN: f64 = 0.1;
const NANOS: f64 = 1e9;

/// What was used when a run began.
pub struct Start {
    clock: Clock,
    cpu_seconds: f64,
    machine: Ticks,
}

impl Start {
    pub fn now(clock: Clock) -> Start {
        Start { clock, cpu_seconds: own_cpu_seconds(), machine: Ticks::now() }
    }

    /// What is to be said of the run that began then, of an app that is judged by a latency of `bound`, where it is by any.
    pub fn judge(&self, totals: &Totals, bound: Option<Duration>) -> Validity {
        let elapsed = self.clock.now().0 as f64 / NANOS;
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get) as f64;
        let cpu = own_cpu_seconds() - self.cpu_seconds;
        let mut validity = Validity {
            schedule_error_p99_us: totals.schedule_error.quantile(0.99),
            cpu_us_per_request: cpu * 1e6 / totals.requests.max(1) as f64,
            cpu_share: cpu / (elapsed * cores).max(f64::MIN_POSITIVE),
            stolen: Ticks::now().stolen_since(&self.machine),
            not_offered: totals.not_offered,
            faults: Vec::new(),
        };
        let slowest = Duration::from_micros(totals.latency_ok.quantile(0.99));
        let late = too_late(&totals.schedule_error, slowest, bound);
        validity.faults = faults(&validity, totals.requests, late);
        validity
    }
}

/// Why what was measured may be the generator's doing, which sent requests so much too late. `None`: it is not.
fn too_late(late_by: &Histogram, slowest: Duration, bound: Option<Duration>) -> Option<String> {
    let late = |share| Duration::from_micros(late_by.quantile(share));
    // Too slow with what the latest were late by, and fast enough without.
    let decides = bound.is_some_and(|bound| slowest >= bound && slowest.saturating_sub(late(0.99)) < bound);
    let (late, who) = match late_by.count() < FEW && !decides {
        true => (late(0.95), "one request in twenty"),
        false => (late(0.99), "one request in a hundred"),
    };
    let matters = bound.filter(|bound| slowest + late < *bound).map_or(slowest, |bound| bound.max(slowest));
    let limit = SCHEDULE_ERROR_P99.max(matters.mul_f64(SCHEDULE_ERROR_OF_LATENCY));
    (late > limit).then(|| {
        format!(
            "{who} was sent more than {} ms late, and {} ms are allowed: the machine is too busy to offer this load",
            late.as_millis(),
            limit.as_millis()
        )
    })
}

/// The generator's own share of the processors is no fault, however large: it is told, and whoever reads the figures takes
/// it into account. When it is too large, the schedule shows it.
fn faults(validity: &Validity, requests: u64, late: Option<String>) -> Vec<String> {
    let mut faults = Vec::new();
    if requests == 0 {
        faults.push("no request was sent".to_owned());
    }
    faults.extend(late);
    if validity.not_offered > 0 {
        let share = validity.not_offered as f64 / (validity.not_offered + requests) as f64 * 100.0;
        faults.push(format!(
            "{} requests or visits ({share:.2} %) were not offered, because a limit of visitors, connections or \
             descriptors was reached",
            validity.not_offered
        ));
    }
    if validity.stolen > STOLEN {
        faults.push(format!(
            "{:.0} % of the machine's processor time was taken by other guests of its host, and {:.0} % are allowed",
            validity.stolen * 100.0,
            STOLEN * 100.0
        ));
    }
    faults
}

/// Of all threads of this process.
fn own_cpu_seconds() -> f64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    time.tv_sec as f64 + time.tv_nsec as f64 / NANOS
}

/// The line `cpu` of /proc/stat (proc(5)).
#[derive(Debug, Clone, Copy, Default)]
struct Ticks {
    all: u64,
    stolen: u64,
}

impl Ticks {
    /// All zero where it cannot be read; nothing is stolen then.
    fn now() -> Ticks {
        Ticks::parse(&std::fs::read_to_string("/proc/stat").unwrap_or_default())
    }

    fn parse(text: &str) -> Ticks {
        let line = text.lines().next().unwrap_or_default();
        // user nice system idle iowait irq softirq steal; what guests of ours use is in user already.
        let ticks: Vec<u64> =
            line.split_whitespace().skip(1).take(8).filter_map(|word| word.parse().ok()).collect();
        Ticks { all: ticks.iter().sum(), stolen: ticks.get(7).copied().unwrap_or(0) }
    }

    /// Of all, from 0 to 1.
    fn stolen_since(self, before: &Ticks) -> f64 {
        let all = self.all.saturating_sub(before.all);
        self.stolen.saturating_sub(before.stolen) as f64 / all.max(1) as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn valid() -> Validity {
        Validity {
            schedule_error_p99_us: 5_000,
            cpu_us_per_request: 15.0,
            cpu_share: 0.9,
            stolen: 0.1,
            not_offered: 0,
            faults: vec![],
        }
    }

    fn check(validity: Validity, requests: u64, expected: &str) {
        let faults = faults(&validity, requests, None);
        match faults.as_slice() {
            [] => assert_eq!(expected, ""),
            [fault] => assert!(!expected.is_empty() && fault.contains(expected), "{fault}"),
            more => panic!("{more:?}"),
        }
    }

    #[test]
    fn a_run_is_invalid_for_what_the_generator_or_the_host_did_and_nothing_else() {
        check(valid(), 100, "");
        check(Validity { not_offered: 1, ..valid() }, 199, "1 requests or visits (0.50 %)");
        check(Validity { stolen: 0.25, ..valid() }, 100, "25 % of the machine");
        check(valid(), 0, "no request");
    }

    /// Of so many requests, two in a hundred were so late, and the slowest answers came after so long.
    fn late(requests: u64, late_ms: u64, slowest_ms: u64, bound_ms: Option<u64>) -> Option<String> {
        let mut late_by = Histogram::new();
        let late = requests.div_ceil(50);
        (0..requests).for_each(|at| late_by.record(if at < late { late_ms * 1_000 } else { 100 }));
        too_late(&late_by, Duration::from_millis(slowest_ms), bound_ms.map(Duration::from_millis))
    }

    #[test]
    fn a_request_may_be_late_by_what_nobody_can_tell_from_the_slowness_of_the_app() {
        let is_valid = |late_ms, slowest_ms| late(1_000, late_ms, slowest_ms, None).is_none();
        assert!(is_valid(4, 20) && is_valid(19, 400) && !is_valid(22, 400));
        // A pause of the whole machine is in both.
        assert!(!is_valid(2_000, 2_000));
        let said = late(1_000, 7, 20, None).unwrap();
        assert!(
            said.starts_with("one request in a hundred was sent more than 7 ms late, and 5 ms are"),
            "{said}"
        );
    }

    /// Twelve milliseconds late, an app that answers within 60 has kept a bound of 400 all the same.
    #[test]
    fn a_request_may_be_late_by_what_changes_no_judgement() {
        let is_valid = |late_ms, slowest_ms| late(1_000, late_ms, slowest_ms, Some(400)).is_none();
        assert!(is_valid(12, 60) && is_valid(19, 370));
        assert!(!is_valid(22, 60), "a twentieth of the bound is allowed");
        assert!(!is_valid(20, 382), "it is so near that nobody knows");
        assert!(is_valid(60, 1_300) && !is_valid(70, 1_300), "what is missed by far is judged as before");
    }

    #[test]
    fn of_few_requests_one_that_is_late_is_chance_but_where_it_decides() {
        assert_eq!(late(100, 30, 60, Some(400)), None);
        assert_eq!(late(100, 30, 60, None), None);
        assert!(late(200, 30, 60, Some(400)).is_some());
        let decides = late(100, 120, 450, Some(400)).unwrap();
        assert!(decides.starts_with("one request in a hundred was sent more than 12"), "{decides}");
        let busy = too_late(
            &{
                let mut late_by = Histogram::new();
                (0..100).for_each(|at| late_by.record(at * 1_000));
                late_by
            },
            Duration::from_millis(20),
            None,
        );
        assert!(busy.unwrap().starts_with("one request in twenty"));
    }

    #[test]
    fn stolen_time_is_a_share_of_all() {
        let before = Ticks::parse("cpu  10 0 0 0 0 0 0 0 0 0\n");
        let after = Ticks::parse("cpu  60 0 10 10 0 0 0 20 9 9\n");
        assert!((after.stolen_since(&before) - 20.0 / 90.0).abs() < 1e-9);
        assert_eq!(Ticks::parse("").stolen_since(&before), 0.0);
    }

    #[test]
    fn what_this_process_uses_is_counted() {
        let before = own_cpu_seconds();
        while own_cpu_seconds() < before + 0.01 {}
        assert!(Ticks::now().all > 0);
    }
}
