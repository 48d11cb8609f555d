//! What to take away to test a diagnosis: a tenth of what each process of a tier may use.
//!
//! Of what it *may* use, not of what it does: a tier with room left does not feel it, one that is full does, and that is the
//! test. Without a limit of its own a process may use what it uses now and what the machine has left.

use std::collections::BTreeMap;

use local::machine::Observation;
use model::Cpu;
use rehearsal::diagnosis::evidence::tier;

use super::evidence::{Elapsed, processes_of};

/// Of what a process may use.
pub const TAKEN: f64 = 0.1;

/// The limits that leave each process of `tier` a tenth less, in thousandths of a core, by two observations of a moment ago.
/// `None` where the tier has no processes, or one that has too little to be taken from.
pub fn a_tenth_less(before: &Observation, now: &Observation, tier: &str) -> Option<BTreeMap<String, u32>> {
    let elapsed = Elapsed::between(before, now);
    let machine = &now.machine;
    let used = elapsed.mean(before.machine.cpu_us_total, machine.cpu_us_total)
        + elapsed.mean(before.machine.interrupts_us_total, machine.interrupts_us_total);
    let idle = (f64::from(machine.cores) - used).max(0.0);
    let mut limits = BTreeMap::new();
    for (name, process) in processes_of(now, tier) {
        let then = before.processes.get(name).filter(|then| then.pid == process.pid)?;
        let uses = elapsed.mean(then.cpu_us_total, process.cpu_us_total);
        let may_use = process.cpu_millis.map_or(uses + idle, |millis| f64::from(millis) / 1e3);
        let left = (may_use * (1.0 - TAKEN) * 1e3) as u32;
        limits.insert(name.to_owned(), Cpu::from_millis(left)?.millis());
    }
    (!limits.is_empty()).then_some(limits)
}

/// Whom else to take a tenth from: of the tiers that do something and have a tenth to be taken, the one that is farthest from
/// full.
pub fn other_than(suspect: &str, before: &Observation, now: &Observation) -> Option<&'static str> {
    let elapsed = Elapsed::between(before, now);
    let fill = |tier: &'static str| {
        let (mut uses, mut may_use) = (0.0, 0.0);
        for (name, process) in processes_of(now, tier) {
            let then = before.processes.get(name)?;
            uses += elapsed.mean(then.cpu_us_total, process.cpu_us_total);
            may_use +=
                process.cpu_millis.map_or(f64::from(now.machine.cores), |millis| f64::from(millis) / 1e3);
        }
        (uses > 0.0).then_some((tier, uses / may_use))
    };
    let others = [tier::EDGE, tier::WEB, tier::PROXY, tier::PRIMARY, tier::REPLICAS];
    let has_a_tenth = |tier: &&'static str| a_tenth_less(before, now, tier).is_some();
    let filled = others.into_iter().filter(|tier| *tier != suspect).filter(has_a_tenth).filter_map(fill);
    filled.min_by(|a, b| a.1.total_cmp(&b.1)).map(|(tier, _)| tier)
}

#[cfg(test)]
mod tests {
    use local::machine::{MachineObserved, ProcessKind, ProcessObserved};

    use super::*;

    fn observation(
        at_us: u64,
        machine_us: u64,
        processes: [(&str, ProcessKind, u64, Option<u32>); 3],
    ) -> Observation {
        let observed = |(name, kind, cpu_us, cpu_millis): (&str, ProcessKind, u64, Option<u32>)| {
            let process = ProcessObserved {
                kind: Some(kind),
                role: None,
                pid: 7,
                is_serving: true,
                cpu_us_total: cpu_us,
                cpu_millis,
                periods_total: 0,
                throttled_periods_total: 0,
                oom_kills_total: 0,
            };
            (name.to_owned(), process)
        };
        Observation {
            at_us,
            machine: MachineObserved { cores: 2, cpu_us_total: machine_us, ..MachineObserved::default() },
            processes: processes.map(observed).into(),
            edges: BTreeMap::new(),
            databases: BTreeMap::new(),
        }
    }

    #[test]
    fn a_tenth_is_taken_of_what_a_process_may_use_and_not_of_what_it_uses() {
        use ProcessKind::{Edge, Web};
        let of = |at, edge, web, machine| {
            observation(
                at,
                machine,
                [
                    ("edge", Edge, edge, None),
                    ("web.1", Web, web, Some(500)),
                    ("web.2", Web, web / 10, Some(500)),
                ],
            )
        };
        let (before, now) = (of(0, 0, 0, 0), of(1_000_000, 200_000, 500_000, 800_000));
        let limits = |tier| a_tenth_less(&before, &now, tier);
        assert_eq!(limits(tier::WEB), Some([("web.1".to_owned(), 450), ("web.2".to_owned(), 450)].into()));
        // It uses 0.2, and the machine has 1.2 left.
        assert_eq!(limits(tier::EDGE), Some([("edge".to_owned(), 1_260)].into()));
        assert_eq!(limits(tier::PRIMARY), None);
        assert_eq!(other_than(tier::WEB, &before, &now), Some(tier::EDGE));
    }

    /// On a full machine what has no limit of its own may use no more than it does.
    #[test]
    fn who_has_no_tenth_to_give_is_not_asked_for_one() {
        use ProcessKind::{Edge, Web};
        let of = |at, edge, web, machine| {
            let processes =
                [("edge", Edge, edge, None), ("web.1", Web, web, Some(500)), ("web.2", Web, web, Some(500))];
            observation(at, machine, processes)
        };
        let (before, idle) = (of(0, 0, 0, 0), of(1_000_000, 2_000, 400_000, 900_000));
        assert_eq!(other_than(tier::PRIMARY, &before, &idle), Some(tier::EDGE));
        let full = of(1_000_000, 2_000, 400_000, 2_000_000);
        assert_eq!(other_than(tier::PRIMARY, &before, &full), Some(tier::WEB));
        assert_eq!(other_than(tier::WEB, &before, &full), None);
    }
}
