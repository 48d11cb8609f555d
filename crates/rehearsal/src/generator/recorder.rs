//! What one thread counts, second by second.
//!
//! A request belongs to the second in which it was meant to be sent. A second is handed over when it is over and all that was
//! meant for it has an outcome, at the latest when the patience for its last request has passed; always in order, and none is
//! left out. So there are never more seconds open than patience has.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use super::clock::Moment;
use super::script::Class;
use crate::histogram::Histogram;
use crate::record::{FailedRequests, Outcome, add_failed};
use crate::report::shortened;

/// Characters of the path of a failed request.
const MOST_OF_PATH: usize = 200;

/// After a second is over: whoever was meant to be woken in it has been.
const GRACE: Duration = Duration::from_millis(100);

/// Outcomes by their place in [`Counts::outcomes`].
pub const OUTCOMES: [Outcome; 7] = [
    Outcome::Ok,
    Outcome::Shed,
    Outcome::Status,
    Outcome::Refused,
    Outcome::Broken,
    Outcome::GaveUp,
    Outcome::TooMuch,
];

/// What one thread saw of one second.
#[derive(Debug)]
pub struct Tally {
    pub at: u32,
    /// Visits that began.
    pub visits: u32,
    /// At its end.
    pub visitors: u32,
    pub connections: u32,
    pub classes: Vec<Counts>,
    pending: u32,
}

#[derive(Debug, Clone, Default)]
pub struct Counts {
    pub sent: u32,
    pub outcomes: [u32; OUTCOMES.len()],
    pub latency: Histogram,
    pub service: Histogram,
    /// Of `latency`, what was not as it should be.
    pub latency_not_ok: BTreeMap<Outcome, Histogram>,
}

/// What one thread saw of the whole run.
#[derive(Debug, Default)]
pub struct Totals {
    /// In µs, of requests that waited for their moment.
    pub schedule_error: Histogram,
    /// In µs, from when they were meant, of all classes: what was answered as it should be.
    pub latency_ok: Histogram,
    pub requests: u64,
    pub not_offered: u64,
    pub failed: Vec<FailedRequests>,
}

impl Totals {
    pub fn add(&mut self, other: &Totals) {
        self.schedule_error.add(&other.schedule_error);
        self.latency_ok.add(&other.latency_ok);
        self.requests += other.requests;
        self.not_offered += other.not_offered;
        other.failed.iter().for_each(|failed| add_failed(&mut self.failed, failed.clone()));
    }
}

pub struct Recorder {
    classes: usize,
    seconds: u32,
    patience: Duration,
    /// The second that is handed over next is the first of these.
    open: VecDeque<Tally>,
    next: u32,
    pub totals: Totals,
}

/// A request that was meant to be sent and has no outcome yet.
#[derive(Debug)]
#[must_use]
pub struct Ticket {
    second: u32,
    class: Class,
    meant: Moment,
}

/// What became of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ended {
    pub outcome: Outcome,
    /// When it was answered in full: that moment, and when it was really sent.
    pub answered: Option<(Moment, Moment)>,
}

impl Recorder {
    /// Of a run of so many seconds.
    pub fn new(classes: usize, seconds: u32, patience: Duration) -> Recorder {
        Recorder { classes, seconds, patience, open: VecDeque::new(), next: 0, totals: Totals::default() }
    }

    pub fn visit_begins(&mut self, meant: Moment) {
        self.tally(meant.in_second()).visits += 1;
    }

    /// Waited for its moment, and is asked for now.
    pub fn scheduled(&mut self, meant: Moment, now: Moment) {
        self.totals.schedule_error.record(now.micros_since(meant));
    }

    pub fn begin(&mut self, class: Class, meant: Moment) -> Ticket {
        self.totals.requests += 1;
        let tally = self.tally(meant.in_second());
        tally.pending += 1;
        tally.classes[class].sent += 1;
        Ticket { second: tally.at, class, meant }
    }

    pub fn end(&mut self, ticket: Ticket, ended: Ended) {
        if let (Some((answered, _)), Outcome::Ok) = (ended.answered, ended.outcome) {
            self.totals.latency_ok.record(answered.micros_since(ticket.meant));
        }
        let Some(tally) = self.open_tally(ticket.second) else { return };
        tally.pending -= 1;
        let counts = &mut tally.classes[ticket.class];
        let place = OUTCOMES.iter().position(|outcome| *outcome == ended.outcome);
        counts.outcomes[place.expect("every outcome is in the list")] += 1;
        if let Some((answered, sent)) = ended.answered {
            let latency = answered.micros_since(ticket.meant);
            counts.latency.record(latency);
            counts.service.record(answered.micros_since(sent));
            if ended.outcome != Outcome::Ok {
                counts.latency_not_ok.entry(ended.outcome).or_default().record(latency);
            }
        }
    }

    /// Which request it was that failed.
    pub fn tell(&mut self, path: &str, outcome: Outcome, status: Option<u16>) {
        let path = shortened(path, MOST_OF_PATH);
        add_failed(&mut self.totals.failed, FailedRequests { path, outcome, status, count: 1 });
    }

    /// It was not sent after all, because a limit of the generator was reached.
    pub fn withdraw(&mut self, ticket: Ticket) {
        self.totals.requests -= 1;
        self.totals.not_offered += 1;
        let Some(tally) = self.open_tally(ticket.second) else { return };
        tally.pending -= 1;
        tally.classes[ticket.class].sent -= 1;
    }

    pub fn not_offered(&mut self) {
        self.totals.not_offered += 1;
    }

    /// How things stand at the end of a second.
    pub fn look(&mut self, second: u32, visitors: u32, connections: u32) {
        let tally = self.tally(second);
        (tally.visitors, tally.connections) = (visitors, connections);
    }

    /// The next second that can be handed over.
    pub fn complete(&mut self, now: Moment) -> Option<Tally> {
        let ends = Moment::second(self.next + 1);
        if self.next >= self.seconds || now < ends.after(GRACE) {
            return None;
        }
        let tally = self.tally(self.next);
        let is_settled = tally.pending == 0;
        // GRACE stands here too, for the visitor to have given up.
        if !is_settled && now < ends.after(self.patience).after(GRACE * 2) {
            return None;
        }
        self.hand_over()
    }

    /// The next second whether it is complete or not, up to that of `last`.
    pub fn flush(&mut self, last: Moment) -> Option<Tally> {
        let end = self.seconds.min(last.in_second() + 1);
        if self.next >= end {
            return None;
        }
        self.tally(self.next);
        self.hand_over()
    }

    fn hand_over(&mut self) -> Option<Tally> {
        self.next += 1;
        self.open.pop_front()
    }

    /// Of a second that is not handed over yet; of one that is, the next after it: what comes too late for its second is still
    /// counted.
    fn tally(&mut self, second: u32) -> &mut Tally {
        let second = second.clamp(self.next, self.seconds.saturating_sub(1).max(self.next));
        while self.next + self.open.len() as u32 <= second {
            let at = self.next + self.open.len() as u32;
            let classes = vec![Counts::default(); self.classes];
            self.open.push_back(Tally { at, visits: 0, visitors: 0, connections: 0, classes, pending: 0 });
        }
        &mut self.open[(second - self.next) as usize]
    }

    /// `None`: it was handed over, and this request was given up for it.
    fn open_tally(&mut self, second: u32) -> Option<&mut Tally> {
        self.open.get_mut(second.checked_sub(self.next)? as usize)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATIENCE: Duration = Duration::from_secs(8);

    fn ms(ms: u64) -> Moment {
        Moment(ms * 1_000_000)
    }

    fn recorder() -> Recorder {
        Recorder::new(1, 3, PATIENCE)
    }

    fn ok(sent: u64, answered: u64) -> Ended {
        Ended { outcome: Outcome::Ok, answered: Some((ms(answered), ms(sent))) }
    }

    #[test]
    fn a_request_belongs_to_the_second_it_was_meant_for_and_its_latency_counts_from_then() {
        let mut recorder = recorder();
        let ticket = recorder.begin(0, ms(990));
        recorder.end(ticket, ok(1_500, 1_520));
        let tally = recorder.complete(ms(1_600)).unwrap();
        assert_eq!((tally.at, tally.classes[0].sent, tally.classes[0].outcomes[0]), (0, 1, 1));
        let about = |histogram: &Histogram, ms: u64| {
            let (micros, _) = histogram.pairs()[0];
            assert!(micros >= ms * 1_000 && micros <= ms * 1_010, "{micros}");
        };
        about(&tally.classes[0].latency, 530);
        about(&tally.classes[0].service, 20);
    }

    #[test]
    fn who_is_turned_away_is_told_from_who_is_served() {
        let mut recorder = recorder();
        let ticket = recorder.begin(0, ms(100));
        recorder.end(ticket, ok(100, 400));
        let ticket = recorder.begin(0, ms(100));
        recorder.end(ticket, Ended { outcome: Outcome::Shed, ..ok(100, 101) });
        let tally = recorder.complete(ms(1_200)).unwrap();
        let of = |histogram: &Histogram| histogram.pairs().iter().map(|(_, count)| count).sum::<u32>();
        let counts = &tally.classes[0];
        assert_eq!((of(&counts.latency), of(&counts.latency_not_ok[&Outcome::Shed])), (2, 1));
        assert_eq!(counts.latency_not_ok.len(), 1);
    }

    #[test]
    fn a_second_waits_for_its_requests_but_not_longer_than_their_patience() {
        let mut recorder = recorder();
        let ticket = recorder.begin(0, ms(500));
        assert!(recorder.complete(ms(1_500)).is_none());
        assert!(recorder.complete(ms(9_000)).is_none());
        let tally = recorder.complete(ms(9_300)).unwrap();
        assert_eq!((tally.classes[0].sent, tally.classes[0].outcomes.iter().sum::<u32>()), (1, 0));
        // Too late to tell; and those of the seconds after it are counted right.
        recorder.end(ticket, ok(500, 9_400));
        assert_eq!(recorder.complete(ms(9_500)).unwrap().classes[0].outcomes[0], 0);
    }

    #[test]
    fn seconds_come_in_order_without_gaps_and_end_with_the_run() {
        let mut recorder = recorder();
        let ticket = recorder.begin(0, ms(2_500));
        recorder.end(ticket, ok(2_500, 2_501));
        assert!(recorder.complete(ms(1_050)).is_none(), "somebody may be about to wake");
        let seconds: Vec<u32> =
            std::iter::from_fn(|| recorder.complete(ms(60_000)).map(|tally| tally.at)).collect();
        assert_eq!(seconds, [0, 1, 2]);
    }

    #[test]
    fn a_run_that_is_cut_short_tells_what_it_has() {
        let mut recorder = recorder();
        let _pending = recorder.begin(0, ms(200));
        let flushed: Vec<(u32, u32)> = std::iter::from_fn(|| recorder.flush(ms(1_200)))
            .map(|tally| (tally.at, tally.classes[0].sent))
            .collect();
        assert_eq!(flushed, [(0, 1), (1, 0)]);
    }

    #[test]
    fn what_comes_too_late_for_its_second_is_still_counted() {
        let mut recorder = recorder();
        recorder.complete(ms(1_200)).unwrap();
        let ticket = recorder.begin(0, ms(900));
        recorder.end(ticket, ok(1_300, 1_301));
        assert_eq!(recorder.complete(ms(2_200)).unwrap().classes[0].sent, 1);
    }

    #[test]
    fn what_was_not_offered_was_not_sent() {
        let mut recorder = recorder();
        let ticket = recorder.begin(0, ms(100));
        recorder.withdraw(ticket);
        assert_eq!((recorder.totals.requests, recorder.totals.not_offered), (0, 1));
        assert_eq!(recorder.complete(ms(1_200)).unwrap().classes[0].sent, 0);
    }
}
