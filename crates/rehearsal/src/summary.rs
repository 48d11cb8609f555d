//! Sums over seconds of a record: how many, how they ended, how long they took.
//!
//! Buckets of a latency are merged as they are, so a quantile is exact to the width of a bucket, one part in a hundred,
//! however many seconds and classes it is over.

use std::collections::{BTreeMap, BTreeSet};

use crate::record::{ClassSecond, Outcome, Second};

/// Requests of some seconds, of one class or of several.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Summary {
    /// How many seconds it is over.
    pub seconds: u32,
    pub sent: u64,
    pub outcomes: BTreeMap<Outcome, u64>,
    pub latency: Latencies,
    pub service: Latencies,
    /// Of `latency`, what is of answers as they should be.
    pub latency_ok: Latencies,
}

/// How long answers took, by buckets.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Latencies {
    /// Upper bound in µs, and count.
    buckets: BTreeMap<u64, u64>,
    count: u64,
}

impl Summary {
    /// Of all classes.
    pub fn of<'a>(seconds: impl IntoIterator<Item = &'a Second>) -> Summary {
        let mut summary = Summary::default();
        for second in seconds {
            summary.seconds += 1;
            for class in second.classes.values() {
                summary.add(class);
            }
        }
        summary
    }

    /// Of one class. Seconds without a request of it count as seconds.
    pub fn of_class<'a>(seconds: impl IntoIterator<Item = &'a Second>, class: &str) -> Summary {
        let mut summary = Summary::default();
        for second in seconds {
            summary.seconds += 1;
            if let Some(class) = second.classes.get(class) {
                summary.add(class);
            }
        }
        summary
    }

    fn add(&mut self, class: &ClassSecond) {
        self.sent += u64::from(class.sent);
        for (outcome, count) in &class.outcomes {
            *self.outcomes.entry(*outcome).or_default() += u64::from(*count);
        }
        self.latency.add(&class.latency);
        self.service.add(&class.service);
        self.latency_ok.add(&class.latency);
        class.latency_not_ok.values().for_each(|latency| self.latency_ok.take_away(latency));
    }

    pub fn count(&self, outcome: Outcome) -> u64 {
        self.outcomes.get(&outcome).copied().unwrap_or_default()
    }

    /// Answered as they should.
    pub fn ok(&self) -> u64 {
        self.count(Outcome::Ok)
    }

    pub fn shed(&self) -> u64 {
        self.count(Outcome::Shed)
    }

    /// Ended in any way but as they should, without those that were shed.
    pub fn failed(&self) -> u64 {
        self.settled() - self.ok() - self.shed()
    }

    /// With an outcome.
    pub fn settled(&self) -> u64 {
        self.outcomes.values().sum()
    }

    /// Of all, from 0 to 1. What never ended is among them. `None`: there are none.
    pub fn failed_share(&self) -> Option<f64> {
        share(self.failed() + self.sent.saturating_sub(self.settled()), self.sent)
    }

    /// Of all, from 0 to 1. `None`: there are none.
    pub fn shed_share(&self) -> Option<f64> {
        share(self.shed(), self.sent)
    }

    /// Of those who were served or wait to be, from 0 to 1, those that got no whole answer: given up, refused, broken off,
    /// without an end. `None`: there are none.
    pub fn unanswered_share(&self) -> Option<f64> {
        share(self.sent.saturating_sub(self.latency.count()), self.served_or_waiting())
    }

    /// Not those who were answered, but not as they should be.
    fn served_or_waiting(&self) -> u64 {
        self.sent.saturating_sub(self.latency.count() - self.latency_ok.count())
    }

    /// In µs, the latency that a share `of` those, from 0 to 1, does not exceed who were served or wait to be, where whoever got
    /// no whole answer waits for ever. `None`: it is that of one of these. Who was turned away or failed is none of them, however
    /// fast.
    pub fn latency_of_all(&self, of: f64) -> Option<u64> {
        quantile(self.latency_ok.buckets(), self.served_or_waiting(), of)
    }

    /// Sent per second.
    pub fn sent_rate(&self) -> f64 {
        per_second(self.sent, self.seconds)
    }

    /// Answered as they should, per second.
    pub fn ok_rate(&self) -> f64 {
        per_second(self.ok(), self.seconds)
    }
}

fn share(of: u64, all: u64) -> Option<f64> {
    (all > 0).then(|| of as f64 / all as f64)
}

fn per_second(count: u64, seconds: u32) -> f64 {
    if seconds == 0 { 0.0 } else { count as f64 / f64::from(seconds) }
}

/// The classes that any of the seconds has, in the order of their names.
pub fn classes<'a>(seconds: impl IntoIterator<Item = &'a Second>) -> BTreeSet<&'a str> {
    seconds.into_iter().flat_map(|second| second.classes.keys().map(String::as_str)).collect()
}

impl Latencies {
    pub fn add(&mut self, buckets: &[(u64, u32)]) {
        for (bound, count) in buckets {
            *self.buckets.entry(*bound).or_default() += u64::from(*count);
            self.count += u64::from(*count);
        }
    }

    /// Those of [`Latencies::add`] that are these. What there is not is not taken.
    fn take_away(&mut self, buckets: &[(u64, u32)]) {
        for (bound, count) in buckets {
            let there = self.buckets.entry(*bound).or_default();
            let taken = u64::from(*count).min(*there);
            *there -= taken;
            self.count -= taken;
            if *there == 0 {
                self.buckets.remove(bound);
            }
        }
    }

    pub fn merge(&mut self, other: &Latencies) {
        for (bound, count) in &other.buckets {
            *self.buckets.entry(*bound).or_default() += count;
        }
        self.count += other.count;
    }

    pub fn count(&self) -> u64 {
        self.count
    }

    /// Upper bounds in µs with their counts, the shortest first.
    pub fn buckets(&self) -> impl Iterator<Item = (u64, u64)> {
        self.buckets.iter().map(|(bound, count)| (*bound, *count))
    }

    /// In µs, what a share `of`, from 0 to 1, does not exceed. `None`: there is nothing.
    pub fn quantile(&self, of: f64) -> Option<u64> {
        quantile(self.buckets(), self.count, of)
    }

    /// In µs, what none exceeds.
    pub fn max(&self) -> Option<u64> {
        self.quantile(1.0)
    }

    /// In µs. At most one part in a hundred above the true one, as buckets count by their upper bounds.
    pub fn mean(&self) -> Option<f64> {
        let sum: f64 = self.buckets().map(|(bound, count)| bound as f64 * count as f64).sum();
        (self.count > 0).then(|| sum / self.count as f64)
    }
}

/// Of buckets in their order with `all` in them.
pub(crate) fn quantile(buckets: impl Iterator<Item = (u64, u64)>, all: u64, of: f64) -> Option<u64> {
    // The smallest rank is the first: nothing is before it. Rounding must not make one more of an exact rank.
    let rank = ((of * all as f64 - 1e-6).ceil() as u64).clamp(1, all.max(1));
    let mut below = 0;
    for (bound, count) in buckets {
        below += count;
        if below >= rank {
            return Some(bound);
        }
    }
    None
}

#[cfg(test)]
pub(crate) mod made {
    //! Seconds for tests.

    use super::*;

    /// A second in which requests of one class all ended alike.
    pub fn second(at: u32, class: &str, outcome: Outcome, latencies: &[(u64, u32)]) -> Second {
        let sent = latencies.iter().map(|(_, count)| count).sum();
        let class_second = ClassSecond {
            sent,
            outcomes: BTreeMap::from([(outcome, sent)]),
            latency: latencies.to_vec(),
            service: latencies.to_vec(),
            latency_not_ok: match outcome {
                Outcome::Ok => BTreeMap::new(),
                _ => BTreeMap::from([(outcome, latencies.to_vec())]),
            },
        };
        Second {
            at,
            phase: "step".to_owned(),
            wished_visits: f64::from(sent),
            visits: sent,
            visitors: 0,
            connections: 0,
            classes: BTreeMap::from([(class.to_owned(), class_second)]),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::made::second;
    use super::*;

    #[test]
    fn a_quantile_is_over_all_seconds_and_classes_together() {
        let seconds = [
            second(0, "page", Outcome::Ok, &[(1_000, 50), (2_000, 40)]),
            second(1, "asset", Outcome::Ok, &[(500, 9), (9_000, 1)]),
        ];
        let summary = Summary::of(&seconds);
        assert_eq!((summary.seconds, summary.sent, summary.latency.count()), (2, 100, 100));
        let quantiles =
            [0.0, 0.09, 0.1, 0.5, 0.59, 0.6, 0.99, 1.0].map(|q| summary.latency.quantile(q).unwrap());
        assert_eq!(quantiles, [500, 500, 1_000, 1_000, 1_000, 2_000, 2_000, 9_000]);
        assert_eq!(summary.latency.mean(), Some((50_000.0 + 80_000.0 + 4_500.0 + 9_000.0) / 100.0));
    }

    #[test]
    fn seconds_without_a_class_count_in_its_rate() {
        let seconds =
            [second(0, "page", Outcome::Ok, &[(1_000, 10)]), second(1, "asset", Outcome::Ok, &[(500, 9)])];
        assert_eq!(Summary::of_class(&seconds, "page").ok_rate(), 5.0);
        assert_eq!(Summary::of_class(&seconds, "none").latency.quantile(0.5), None);
        assert_eq!(classes(&seconds), BTreeSet::from(["asset", "page"]));
    }

    #[test]
    fn what_was_shed_is_no_failure_and_what_never_ended_is_one() {
        let mut under_way = second(2, "page", Outcome::Ok, &[(1_000, 10)]);
        under_way.classes.get_mut("page").unwrap().sent = 15;
        let seconds = [
            second(0, "page", Outcome::Shed, &[(1_000, 10)]),
            second(1, "page", Outcome::GaveUp, &[(8_000_000, 20)]),
            under_way,
        ];
        let summary = Summary::of(&seconds);
        assert_eq!((summary.sent, summary.settled(), summary.failed(), summary.shed()), (45, 40, 20, 10));
        assert_eq!((summary.failed_share(), summary.shed_share()), (Some(25.0 / 45.0), Some(10.0 / 45.0)));
        assert_eq!(Summary::default().failed_share(), None);
    }

    #[test]
    fn who_gets_no_whole_answer_waits_for_ever() {
        let mut seconds =
            [second(0, "page", Outcome::Ok, &[(1_000, 97)]), second(1, "page", Outcome::GaveUp, &[])];
        let given_up = seconds[1].classes.get_mut("page").unwrap();
        (given_up.sent, given_up.outcomes) = (3, [(Outcome::GaveUp, 2), (Outcome::Refused, 1)].into());
        let summary = Summary::of(&seconds);
        assert_eq!(summary.latency.quantile(0.99), Some(1_000), "of those that were answered");
        assert_eq!(
            [0.5, 0.97, 0.98, 0.99].map(|of| summary.latency_of_all(of)),
            [Some(1_000), Some(1_000), None, None]
        );
        assert_eq!(summary.unanswered_share(), Some(0.03));
    }

    #[test]
    fn who_is_turned_away_at_once_makes_nobody_else_faster() {
        let seconds = [
            second(0, "page", Outcome::Ok, &[(1_000, 5), (400_000, 5)]),
            second(0, "page", Outcome::Shed, &[(1_000, 900)]),
            second(1, "page", Outcome::Status, &[(2_000, 90)]),
        ];
        let summary = Summary::of(&seconds);
        assert_eq!(summary.latency.quantile(0.99), Some(2_000), "of all that were answered");
        assert_eq!([0.5, 0.51].map(|of| summary.latency_of_all(of)), [Some(1_000), Some(400_000)]);
        // Where nobody is served, nobody is served fast.
        assert_eq!(Summary::of(&seconds[1..]).latency_of_all(0.5), None);
    }

    #[test]
    fn merging_is_the_same_as_adding_all() {
        let (mut one, mut other, mut both) =
            (Latencies::default(), Latencies::default(), Latencies::default());
        one.add(&[(1, 2), (3, 4)]);
        other.add(&[(3, 1), (9, 9)]);
        both.add(&[(3, 1), (9, 9), (1, 2), (3, 4)]);
        one.merge(&other);
        assert_eq!(one, both);
        assert_eq!(both.max(), Some(9));
    }
}
