//! Who else used the machine while the app was measured: other programs, and the load's own generator. What the app did
//! meanwhile is not only its own doing.
//!
//! A search judges each of its steps by this. What has no steps is judged in windows as long as one, each by the requests that
//! were sent in it: those are what its thresholds are judged by.

use std::fmt;

use super::MACHINE_FULL;
use super::evidence::{Window, more, tier};
use super::say::percent;
use crate::record::{Second, Tier};
use crate::summary::Summary;

/// Of the machine's cores: others may use so much while the app is measured.
const FOREIGN: f64 = 0.10;
/// Of the machine's cores, where it is full: with more of them the generator has taken what the app would have had.
const MOST_GENERATOR: f64 = 0.4;
const WINDOW_SECONDS: usize = 10;
/// Of the requests: a 99th percentile is that of the slowest few.
const MOST_DISTURBED: f64 = 0.05;

/// Of the machine's processors, from 0 to 1.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Taken {
    ByOthers(f64),
    /// The machine was full.
    ByGenerator(f64),
}

impl Taken {
    /// `None`: the app had as much as it would have had alone.
    pub(super) fn of(machine: &Window, cores: f64) -> Option<Taken> {
        let share = |name: &str| machine.more(name).unwrap_or(0.0) / cores;
        let (foreign, generator) = (share(more::FOREIGN_CPU), share(more::GENERATOR_CPU));
        if foreign > FOREIGN {
            return Some(Taken::ByOthers(foreign));
        }
        let is_full = machine.cpu >= MACHINE_FULL * cores;
        (is_full && generator > MOST_GENERATOR).then_some(Taken::ByGenerator(generator))
    }

    fn share(self) -> f64 {
        let (Taken::ByOthers(share) | Taken::ByGenerator(share)) = self;
        share
    }
}

impl fmt::Display for Taken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Taken::ByOthers(share) => {
                write!(f, "others used {} of the machine's processors", percent(*share))
            }
            Taken::ByGenerator(share) => {
                write!(
                    f,
                    "the load's own generator used {} of the full machine's processors",
                    percent(*share)
                )
            }
        }
    }
}

/// Why `seconds` of load, in which the tiers did this, say nothing of the app: too many requests were sent while others took
/// too much. Empty: they do. Where nobody looked nothing is known of others.
pub fn disturbed(seconds: &[Second], tiers: &[Tier]) -> Vec<String> {
    let Some(machine) = tiers.iter().find(|tier| tier.name == tier::MACHINE) else { return Vec::new() };
    let taken = |window: &[Second]| {
        let machine = Window::of(machine, window.first()?.at, window.last()?.at + 1)?;
        Taken::of(&machine, Some(machine.cpu_allowed).filter(|cores| *cores > 0.0)?)
    };
    let windows = seconds.chunks(WINDOW_SECONDS);
    let disturbed: Vec<(u64, Taken)> =
        windows.filter_map(|window| Some((Summary::of(window).sent, taken(window)?))).collect();
    let sent: u64 = disturbed.iter().map(|(sent, _)| sent).sum();
    let share = sent as f64 / Summary::of(seconds).sent.max(1) as f64;
    let worst = disturbed.iter().map(|(_, taken)| taken).max_by(|a, b| a.share().total_cmp(&b.share()));
    let worst = worst.filter(|_| share > MOST_DISTURBED);
    let says = |worst: &Taken| {
        format!(
            "{} of the requests were sent while the app did not have the machine to itself: at the worst {worst}",
            percent(share)
        )
    };
    worst.map(says).into_iter().collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::{ClassSecond, TierSecond};

    /// A minute of ten requests a second on two cores. `used`: cores, of all and by whom, in each second.
    fn minute(used: impl Fn(u32) -> (f64, &'static str, f64)) -> (Vec<Second>, Vec<Tier>) {
        let second = |at| {
            let class = ClassSecond { sent: 10, ..ClassSecond::default() };
            Second { at, classes: [("page".to_owned(), class)].into(), ..Second::default() }
        };
        let machine = |at| {
            let (cpu, whose, cores) = used(at);
            let more = [(whose.to_owned(), cores)].into();
            TierSecond { at, cpu, cpu_allowed: 2.0, more, ..TierSecond::default() }
        };
        let tier = Tier { name: tier::MACHINE.to_owned(), seconds: (0..60).map(machine).collect() };
        ((0..60).map(second).collect(), vec![tier])
    }

    fn check(used: impl Fn(u32) -> (f64, &'static str, f64), expected: Option<&str>) {
        let (seconds, tiers) = minute(used);
        let said = disturbed(&seconds, &tiers);
        match expected {
            None => assert_eq!(said, [""; 0]),
            Some(ends) => assert!(said.len() == 1 && said[0].ends_with(ends), "{said:?}"),
        }
    }

    #[test]
    fn a_build_beside_a_crowd_makes_its_figures_doubtful() {
        check(|_| (2.0, more::FOREIGN_CPU, 0.9), Some("others used 45 % of the machine's processors"));
        // For a quarter of a minute: in two windows of six.
        let for_a_while = |at| (1.0, more::FOREIGN_CPU, if (20..35).contains(&at) { 1.0 } else { 0.0 });
        check(for_a_while, Some("others used 50 % of the machine's processors"));
        let said = disturbed(&minute(for_a_while).0, &minute(for_a_while).1);
        assert!(said[0].starts_with("33 % of the requests"), "{said:?}");
    }

    #[test]
    fn what_others_use_always_and_what_they_do_for_a_second_is_no_doubt() {
        check(|_| (1.0, more::FOREIGN_CPU, 0.19), None);
        check(|at| (1.0, more::FOREIGN_CPU, if at == 30 { 1.9 } else { 0.0 }), None);
    }

    #[test]
    fn a_generator_counts_where_the_machine_is_full() {
        let ends = "the load's own generator used 50 % of the full machine's processors";
        check(|_| (1.9, more::GENERATOR_CPU, 1.0), Some(ends));
        check(|_| (1.5, more::GENERATOR_CPU, 1.0), None);
    }

    #[test]
    fn of_an_app_whose_tiers_nobody_sees_nothing_is_said() {
        let (seconds, tiers) = minute(|_| (2.0, more::FOREIGN_CPU, 2.0));
        assert_eq!(disturbed(&seconds, &[]), [""; 0]);
        assert_eq!(disturbed(&[], &tiers), [""; 0]);
    }
}
