//! Instants as small integers, so that they fit in an atomic.

use std::time::{Duration, Instant};

/// Turns instants into [`Tick`]s. Copied into every endpoint of a cluster, so that they agree.
#[derive(Debug, Clone, Copy)]
pub(super) struct Clock {
    epoch: Instant,
}

/// Microseconds since the cluster was made, counted from one: zero is free to mean "never".
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Tick(pub(super) u64);

impl Clock {
    pub(super) fn starting(epoch: Instant) -> Clock {
        Clock { epoch }
    }

    /// Instants before the epoch count as the epoch.
    pub(super) fn at(self, now: Instant) -> Tick {
        Tick(1 + micros(now.saturating_duration_since(self.epoch)))
    }
}

impl Tick {
    pub(super) const NEVER: Tick = Tick(0);

    pub(super) fn after(self, delay: Duration) -> Tick {
        Tick(self.0.saturating_add(micros(delay)))
    }

    pub(super) fn since(self, earlier: Tick) -> Duration {
        Duration::from_micros(self.0.saturating_sub(earlier.0))
    }

    pub(super) fn second(self) -> u64 {
        self.0 / 1_000_000
    }
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX / 2)
}
