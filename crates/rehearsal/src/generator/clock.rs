//! Time since a run began, by one clock for all threads.

use std::time::{Duration, Instant};

const NS_PER_SECOND: u64 = 1_000_000_000;
/// What is meant to be sent is meant for one of these moments, and what was answered is taken at one, so that all of it shares a
/// wake-up (`super::pace`). Networks shake what they carry by more.
const GRID_NS: u64 = 500_000;

/// A moment of a run: nanoseconds since it began.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Moment(pub u64);

impl Moment {
    /// When the second `second` begins.
    pub fn second(second: u32) -> Moment {
        Moment(u64::from(second) * NS_PER_SECOND)
    }

    /// In which second it is.
    pub fn in_second(self) -> u32 {
        u32::try_from(self.0 / NS_PER_SECOND).unwrap_or(u32::MAX)
    }

    pub fn after_ns(self, ns: u64) -> Moment {
        Moment(self.0.saturating_add(ns))
    }

    pub fn after(self, duration: Duration) -> Moment {
        self.after_ns(u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX))
    }

    /// The moment of the grid at or before it.
    pub fn on_grid_before(self) -> Moment {
        Moment(self.0 - self.0 % GRID_NS)
    }

    /// The moment of the grid at or behind it.
    pub fn on_grid_behind(self) -> Moment {
        Moment(self.0.checked_next_multiple_of(GRID_NS).unwrap_or(self.0))
    }

    /// The first moment of the grid that is later.
    pub fn next_on_grid(self) -> Moment {
        self.on_grid_before().after_ns(GRID_NS)
    }

    /// 0 when `later` is earlier.
    pub fn until(self, later: Moment) -> Duration {
        Duration::from_nanos(later.0.saturating_sub(self.0))
    }

    pub fn just_before(self) -> Moment {
        Moment(self.0.saturating_sub(1))
    }

    /// 0 when `earlier` is later.
    pub fn micros_since(self, earlier: Moment) -> u64 {
        self.0.saturating_sub(earlier.0) / 1_000
    }
}

#[derive(Debug, Clone, Copy)]
pub struct Clock(Instant);

impl Clock {
    /// A run that begins at `began`.
    pub fn beginning(began: Instant) -> Clock {
        Clock(began)
    }

    pub fn now(self) -> Moment {
        Moment(u64::try_from(self.0.elapsed().as_nanos()).unwrap_or(u64::MAX))
    }

    /// 0 when it is before the run.
    pub fn moment(self, instant: Instant) -> Moment {
        Moment(0).after(instant.saturating_duration_since(self.0))
    }

    pub fn instant(self, moment: Moment) -> Instant {
        self.0 + Duration::from_nanos(moment.0)
    }
}
