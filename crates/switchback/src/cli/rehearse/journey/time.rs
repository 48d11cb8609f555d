//! How long a journey may take, and who gets how much of it.

use std::time::{Duration, Instant};

use super::trip::{AFTER, BEFORE};

/// For all of it.
pub const FULL: Duration = Duration::from_secs(600);
pub const QUICK: Duration = Duration::from_secs(180);
/// Until the copy is up. What it takes longer is a build's, and comes on top.
const UP: Duration = Duration::from_secs(20);
/// What a move takes with the seconds around it, as a rule.
const MOVE: Duration = BEFORE.saturating_add(Duration::from_secs(7)).saturating_add(AFTER);
/// For the last answers of a step that was too much, for the report, and until the copy is deleted.
const CLOSING: Duration = Duration::from_secs(20);
/// A search that is shorter says nothing.
const LEAST: Duration = Duration::from_secs(5);

pub struct Budget {
    began: Instant,
    ends: Instant,
}

impl Budget {
    pub fn new(began: Instant, total: Duration) -> Budget {
        Budget { began, ends: began + total }
    }

    /// The copy answers.
    pub fn is_up(&mut self, now: Instant) {
        self.ends += now.saturating_duration_since(self.began).saturating_sub(UP);
    }

    pub fn left(&self, now: Instant) -> Duration {
        self.ends.saturating_duration_since(now).saturating_sub(CLOSING)
    }

    /// When a search has to be over that begins now, so that each of the `further` stages gets as much.
    pub fn search_until(&self, now: Instant, further: usize) -> Instant {
        now + self.search(self.left(now), further)
    }

    /// Whether there is time for one more stage, and `further` after it.
    pub fn has_another(&self, now: Instant, further: usize) -> bool {
        self.search(self.left(now).saturating_sub(MOVE), further) >= LEAST
    }

    fn search(&self, left: Duration, further: usize) -> Duration {
        let further = u32::try_from(further).unwrap_or(u32::MAX);
        left.saturating_sub(MOVE.saturating_mul(further)) / further.saturating_add(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn seconds(count: u64) -> Duration {
        Duration::from_secs(count)
    }

    #[test]
    fn three_searches_share_what_two_moves_leave() {
        let began = Instant::now();
        let budget = Budget::new(began, seconds(180));
        // 180 - 20 in the end - 2 moves of 20.
        assert_eq!(budget.search_until(began, 2), began + seconds(40));
        // One that took less leaves it to the others.
        let second = began + seconds(30 + 20);
        assert_eq!(budget.search_until(second, 1), second + seconds(45));
        let third = second + seconds(45 + 20);
        assert_eq!(budget.search_until(third, 0), third + seconds(45));
    }

    #[test]
    fn nothing_begins_that_cannot_end_in_time() {
        let began = Instant::now();
        let budget = Budget::new(began, seconds(180));
        assert!(budget.has_another(began, 1));
        assert!(budget.has_another(began + seconds(180 - 20 - 20 - 5), 0));
        assert!(!budget.has_another(began + seconds(180 - 20 - 20 - 4), 0));
        assert_eq!(budget.left(began + seconds(500)), Duration::ZERO);
        assert_eq!(budget.search_until(began + seconds(500), 0), began + seconds(500));
    }

    #[test]
    fn a_build_comes_on_top() {
        let began = Instant::now();
        let mut budget = Budget::new(began, seconds(180));
        let up = began + seconds(320);
        budget.is_up(up);
        assert_eq!(budget.left(up), seconds(180 - 20 - 20));
        let mut quick = Budget::new(began, seconds(180));
        quick.is_up(began + seconds(5));
        assert_eq!(quick.left(began), seconds(160), "without one nothing does");
    }
}
