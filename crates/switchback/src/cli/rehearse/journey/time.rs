//! How long a journey may take, and who gets how much of it.

use std::time::{Duration, Instant};

use super::trip::{AFTER, BEFORE};

/// For all of it.
pub const FULL: Duration = Duration::from_secs(600);
pub const QUICK: Duration = Duration::from_secs(180);
/// Until the copy is up. What it takes longer is a build's, and comes on top.
const UP: Duration = Duration::from_secs(20);
/// What a move takes with the seconds around it, as a rule.
const MOVE: Duration = BEFORE.saturating_add(Duration::from_secs(4)).saturating_add(AFTER);
/// For the last answers of a step that was too much, for the report, and until the copy is deleted.
const CLOSING: Duration = Duration::from_secs(15);
/// A search that is shorter says nothing.
const LEAST: Duration = Duration::from_secs(5);

/// What a search begins with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Knowing {
    /// It has to look first where to begin, and gets half as much more for that.
    Nothing,
    /// By the stage below.
    Where,
}

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

    /// When a search has to be over that begins now, so that each of the `further` stages gets its share.
    pub fn search_until(&self, now: Instant, begins: Knowing, further: usize) -> Instant {
        now + share(self.left(now), begins, further)
    }

    /// Whether there is time for one more stage, and `further` after it.
    pub fn has_another(&self, now: Instant, further: usize) -> bool {
        share(self.left(now).saturating_sub(MOVE), Knowing::Where, further) >= LEAST
    }
}

/// Of the time that is left for one search now, and for a move and a search at each of the `further` stages.
fn share(left: Duration, begins: Knowing, further: usize) -> Duration {
    let further = u32::try_from(further).unwrap_or(u32::MAX);
    let searches = left.saturating_sub(MOVE.saturating_mul(further));
    let own = if begins == Knowing::Nothing { 3 } else { 2 };
    searches * own / further.saturating_mul(2).saturating_add(own)
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
        let budget = Budget::new(began, seconds(168));
        // 168 - 15 in the end - 2 moves of 17: three sevenths of that, and two for each of the others.
        assert_eq!(budget.search_until(began, Knowing::Nothing, 2), began + seconds(51));
        // One that took less leaves it to the others.
        let second = began + seconds(41 + 17);
        assert_eq!(budget.search_until(second, Knowing::Where, 1), second + seconds(39));
        let third = second + seconds(39 + 17);
        assert_eq!(budget.search_until(third, Knowing::Where, 0), third + seconds(39));
    }

    #[test]
    fn nothing_begins_that_cannot_end_in_time() {
        let began = Instant::now();
        let budget = Budget::new(began, seconds(180));
        assert!(budget.has_another(began, 1));
        assert!(budget.has_another(began + seconds(180 - 15 - 17 - 5), 0));
        assert!(!budget.has_another(began + seconds(180 - 15 - 17 - 4), 0));
        let late = began + seconds(500);
        assert_eq!(budget.left(late), Duration::ZERO);
        assert_eq!(budget.search_until(late, Knowing::Nothing, 0), late);
    }

    #[test]
    fn a_build_comes_on_top() {
        let began = Instant::now();
        let mut budget = Budget::new(began, seconds(180));
        let up = began + seconds(320);
        budget.is_up(up);
        assert_eq!(budget.left(up), seconds(180 - 20 - 15));
        let mut quick = Budget::new(began, seconds(180));
        quick.is_up(began + seconds(5));
        assert_eq!(quick.left(began), seconds(165), "without one nothing does");
    }
}
