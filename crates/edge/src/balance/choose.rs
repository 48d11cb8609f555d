//! Which of several endpoints: the power of two choices over weighted load, with a preference for the own zone.

/// An endpoint with room, as one pick sees it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Candidate {
    /// Index into the snapshot.
    pub(super) slot: usize,
    /// Requests it has work with.
    pub(super) busy: u32,
    /// The effective weight, above zero.
    pub(super) weight: f64,
}

impl Candidate {
    /// Requests per weight, this one included as a random part of one.
    ///
    /// With a whole one, an idle upstream would send everything to the endpoint of the highest weight and an endpoint
    /// in slow start would see nothing at low load. With a part drawn anew each time, idle endpoints share in about
    /// the proportion of their weights, and between equal endpoints one request more still always decides.
    fn score(&self, part: f64) -> f64 {
        (f64::from(self.busy) + part) / self.weight
    }

    /// Without randomness, to compare zones: 1.0 is one request at an endpoint of weight 100.
    fn load(&self) -> f64 {
        f64::from(self.busy) * 100.0 / self.weight
    }
}

/// The less loaded of two drawn at random. Two are nearly as good as all, and do not make every thread that looks at
/// the same moment choose the same endpoint.
pub(super) fn least_loaded_of_two(candidates: &[Candidate]) -> Option<Candidate> {
    let (first, second) = match candidates {
        [] => return None,
        [only] => return Some(*only),
        _ => {
            let first = fastrand::usize(..candidates.len());
            // One fewer, then stepped over the first: two different ones.
            let second = fastrand::usize(..candidates.len() - 1);
            (first, if second >= first { second + 1 } else { second })
        }
    };
    let (first, second) = (candidates[first], candidates[second]);
    let (mine, yours) = (1.0 - fastrand::f64(), 1.0 - fastrand::f64());
    if first.score(mine) <= second.score(yours) { Some(first) } else { Some(second) }
}

/// The one of the own zone, unless it has more than twice the load of the other and one more: a hop between zones is
/// cheaper than a queue.
pub(super) fn prefer_local(local: Option<Candidate>, remote: Option<Candidate>) -> Option<Candidate> {
    match (local, remote) {
        (Some(local), Some(remote)) if local.load() > 2.0 * remote.load() + 1.0 => Some(remote),
        (Some(local), _) => Some(local),
        (None, remote) => remote,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn candidate(slot: usize, busy: u32, weight: f64) -> Candidate {
        Candidate { slot, busy, weight }
    }

    fn share_of(slot: usize, candidates: &[Candidate]) -> f64 {
        fastrand::seed(7);
        let draws = 100_000;
        let hits = (0..draws).filter(|_| least_loaded_of_two(candidates).unwrap().slot == slot).count();
        hits as f64 / f64::from(draws)
    }

    #[test]
    fn of_two_equal_endpoints_the_less_loaded_always_wins() {
        let candidates = [candidate(0, 3, 100.0), candidate(1, 2, 100.0)];
        assert_eq!(share_of(1, &candidates), 1.0);
    }

    #[test]
    fn idle_equal_endpoints_share_evenly() {
        let candidates = [0, 1, 2, 3].map(|slot| candidate(slot, 0, 100.0));
        for slot in 0..4 {
            assert!((share_of(slot, &candidates) - 0.25).abs() < 0.01);
        }
    }

    #[test]
    fn an_idle_endpoint_of_a_tenth_of_the_weight_gets_some_traffic_but_little() {
        let share = share_of(0, &[candidate(0, 0, 10.0), candidate(1, 0, 100.0)]);
        assert!((0.02..0.12).contains(&share), "{share}");
    }

    #[test]
    fn the_own_zone_is_preferred_until_it_has_twice_the_load() {
        let remote = Some(candidate(1, 2, 100.0));
        let stays = prefer_local(Some(candidate(0, 5, 100.0)), remote);
        assert_eq!(stays.unwrap().slot, 0);
        let spills = prefer_local(Some(candidate(0, 6, 100.0)), remote);
        assert_eq!(spills.unwrap().slot, 1);
    }
}
