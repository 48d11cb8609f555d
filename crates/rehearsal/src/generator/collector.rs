//! Puts together what the threads saw, second by second.

use std::collections::{BTreeMap, VecDeque};

use super::recorder::{Counts, OUTCOMES, Tally};
use super::script::Script;
use crate::arrivals::Rate;
use crate::record::{ClassSecond, Second};

pub struct Collector<'a> {
    script: &'a Script,
    rate: std::iter::Peekable<Rate<'a>>,
    /// Seconds that not all threads have handed over, with how many have. Threads hand over in order.
    open: VecDeque<(Tally, u32)>,
}

impl<'a> Collector<'a> {
    pub fn new(script: &'a Script) -> Collector<'a> {
        let load = &script.load;
        let rate = Rate::new(&load.phases, load.noise, load.seed).peekable();
        Collector { script, rate, open: VecDeque::new() }
    }

    /// Takes what a thread handed over. Returns the second if all have.
    pub fn add(&mut self, tally: Tally) -> Option<Second> {
        match self.open.iter_mut().find(|(open, _)| open.at == tally.at) {
            Some((open, threads)) => {
                open.add(&tally);
                *threads += 1;
            }
            None => self.open.push_back((tally, 1)),
        }
        let threads = self.script.load.limits.threads;
        self.open
            .pop_front_if(|(_, handed_over)| *handed_over == threads)
            .map(|(tally, _)| self.second(&tally))
    }

    /// The next of those that some threads have not handed over, because all have ended.
    pub fn rest(&mut self) -> Option<Second> {
        self.open.pop_front().map(|(tally, _)| self.second(&tally))
    }

    fn second(&mut self, tally: &Tally) -> Second {
        let begins = u64::from(tally.at) * 1_000_000_000;
        let (mut wished, mut lasts_ns, mut phase) = (0.0, 0, None);
        while let Some(piece) = self.rate.next_if(|piece| piece.at_ns < begins + 1_000_000_000) {
            // Of a second that was skipped there is nothing to say.
            if piece.at_ns >= begins {
                wished += piece.visits();
                lasts_ns += piece.lasts_ns;
                phase.get_or_insert(piece.phase);
            }
        }
        let names = self.script.classes.iter().zip(&tally.classes);
        let names = names.filter(|(_, counts)| counts.sent > 0);
        let classes: BTreeMap<String, ClassSecond> =
            names.map(|(name, counts)| (name.clone(), counts.class_second())).collect();
        let phases = &self.script.load.phases;
        Second {
            at: tally.at,
            phase: phase
                .and_then(|phase| phases.get(phase))
                .map(|phase| phase.name.clone())
                .unwrap_or_default(),
            wished_visits: if lasts_ns == 0 { 0.0 } else { wished * 1e9 / lasts_ns as f64 },
            visits: tally.visits,
            visitors: tally.visitors,
            connections: tally.connections,
            classes,
        }
    }
}

impl Tally {
    fn add(&mut self, other: &Tally) {
        self.visits += other.visits;
        self.visitors += other.visitors;
        self.connections += other.connections;
        for (mine, theirs) in self.classes.iter_mut().zip(&other.classes) {
            mine.sent += theirs.sent;
            mine.outcomes.iter_mut().zip(theirs.outcomes).for_each(|(mine, theirs)| *mine += theirs);
            mine.latency.add(&theirs.latency);
            mine.service.add(&theirs.service);
            for (outcome, latency) in &theirs.latency_not_ok {
                mine.latency_not_ok.entry(*outcome).or_default().add(latency);
            }
        }
    }
}

impl Counts {
    fn class_second(&self) -> ClassSecond {
        let outcomes = OUTCOMES.into_iter().zip(self.outcomes).filter(|(_, count)| *count > 0);
        ClassSecond {
            sent: self.sent,
            outcomes: outcomes.collect(),
            latency: self.latency.pairs(),
            service: self.service.pairs(),
            latency_not_ok: self
                .latency_not_ok
                .iter()
                .map(|(outcome, latency)| (*outcome, latency.pairs()))
                .collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::generator::clock::Moment;
    use crate::generator::recorder::{Ended, Recorder};
    use crate::generator::script::tests::{load, step};
    use crate::load::Phase;
    use crate::record::Outcome;

    fn script() -> Script {
        let mut load = load(vec![step("/")]);
        let phase = |name: &str, lasts_ms, from, to| Phase { name: name.to_owned(), lasts_ms, from, to };
        load.phases = vec![phase("ramp", 500, 0.0, 8.0), phase("plateau", 1_200, 8.0, 8.0)];
        load.limits.threads = 2;
        Script::new(load).unwrap()
    }

    fn tallies(script: &Script, answered_ms: u64) -> Vec<Tally> {
        let mut recorder = Recorder::new(script.classes.len(), script.seconds(), Duration::from_secs(1));
        let ms = |ms: u64| Moment(ms * 1_000_000);
        recorder.visit_begins(ms(100));
        let ticket = recorder.begin(1, ms(100));
        recorder.end(ticket, Ended { outcome: Outcome::Ok, answered: Some((ms(answered_ms), ms(100))) });
        recorder.look(0, 3, 4);
        std::iter::from_fn(|| recorder.complete(ms(60_000))).collect()
    }

    #[test]
    fn a_second_is_told_when_all_threads_have_told_it_and_is_their_sum() {
        let script = script();
        let mut collector = Collector::new(&script);
        let (one, other) = (tallies(&script, 150), tallies(&script, 900));
        let mut seconds = Vec::new();
        assert!(one.into_iter().all(|tally| collector.add(tally).is_none()));
        seconds.extend(other.into_iter().filter_map(|tally| collector.add(tally)));
        let [first, last] = &seconds[..] else { panic!("{seconds:?}") };
        assert_eq!((first.at, last.at), (0, 1));
        assert_eq!((first.visits, first.visitors, first.connections), (2, 6, 8));
        let page = &first.classes["page"];
        assert_eq!((page.sent, page.outcomes[&Outcome::Ok]), (2, 2));
        assert_eq!(page.latency.iter().map(|(_, count)| count).sum::<u32>(), 2);
        assert!(!first.classes.contains_key("asset"), "what was not asked for is not told");
        // A ramp from 0 to 8 over half of it, and 8 for the other half; the last is shorter and no slower.
        assert_eq!((first.wished_visits, last.wished_visits), (6.0, 8.0));
        assert_eq!((first.phase.as_str(), last.phase.as_str()), ("ramp", "plateau"));
    }

    #[test]
    fn what_only_some_threads_told_is_told_in_the_end() {
        let script = script();
        let mut collector = Collector::new(&script);
        assert!(tallies(&script, 150).into_iter().all(|tally| collector.add(tally).is_none()));
        assert_eq!(collector.rest().unwrap().visits, 1);
        assert_eq!(collector.rest().unwrap().at, 1);
        assert!(collector.rest().is_none());
    }
}
