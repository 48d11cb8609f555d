//! Verdicts by key: a table of fixed size, for one worker, without locks.
//!
//! A key has a home, and may stand in any of the [`REACH`] slots from there on. A hit is counted. What is new takes the
//! place of the neighbour that was hit least, and all of them lose half of their hits, so that yesterday's favourites make
//! room.

use crate::fold::Key;
use crate::statement::Statement;

/// How many verdicts a cache holds.
pub const CAPACITY: usize = 4096;

/// How far from its home a key may stand.
const REACH: usize = 8;

/// A cache of [`CAPACITY`] verdicts. Nothing is allocated once it is made.
pub struct Cache {
    slots: Box<[Option<Slot>]>,
}

#[derive(Clone, Copy)]
struct Slot {
    key: Key,
    hits: u16,
    statement: Statement,
}

impl Cache {
    pub fn get(&mut self, key: Key) -> Option<Statement> {
        for at in places(key) {
            if let Some(slot) = &mut self.slots[at]
                && slot.key == key
            {
                slot.hits = slot.hits.saturating_add(1);
                return Some(slot.statement);
            }
        }
        None
    }

    /// Keeps a verdict in place of an older one of the same key, or of the neighbour that was hit least.
    pub fn insert(&mut self, key: Key, statement: Statement) {
        let is_same = |at: &usize| self.slots[*at].is_some_and(|slot| slot.key == key);
        let hits = |at: &usize| self.slots[*at].map(|slot| slot.hits);
        let chosen = places(key).find(is_same).or_else(|| places(key).min_by_key(hits));
        for at in places(key) {
            if let Some(slot) = &mut self.slots[at] {
                slot.hits /= 2;
            }
        }
        if let Some(at) = chosen {
            self.slots[at] = Some(Slot { key, hits: 0, statement });
        }
    }
}

impl Default for Cache {
    fn default() -> Cache {
        Cache { slots: vec![None; CAPACITY].into_boxed_slice() }
    }
}

fn places(key: Key) -> impl Iterator<Item = usize> {
    let home = key.hash as usize % CAPACITY;
    (home..home + REACH).map(|at| at % CAPACITY)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::statement::Because;

    fn key(hash: u64) -> Key {
        Key { hash, check: 7 }
    }

    /// A key of the same home as `key(home)`.
    fn neighbour(home: u64, number: u64) -> Key {
        key(home + number * CAPACITY as u64)
    }

    fn statement() -> Statement {
        Statement::unknown(Because::Kind)
    }

    #[test]
    fn what_is_inserted_is_found_by_all_of_its_key() {
        let mut cache = Cache::default();
        cache.insert(key(5), statement());
        assert_eq!(cache.get(key(5)), Some(statement()));
        assert_eq!(cache.get(Key { hash: 5, check: 8 }), None);
        assert_eq!(cache.get(neighbour(5, 1)), None);
    }

    #[test]
    fn a_key_has_one_verdict_the_newest() {
        let mut cache = Cache::default();
        cache.insert(key(5), statement());
        cache.get(key(5));
        cache.insert(key(5), Statement::unknown(Because::Lock));
        assert_eq!(cache.get(key(5)), Some(Statement::unknown(Because::Lock)));
    }

    #[test]
    fn what_is_asked_for_stays_while_others_pass_by() {
        let mut cache = Cache::default();
        cache.insert(key(5), statement());
        for other in 1..1000 {
            assert!(cache.get(key(5)).is_some(), "after {other} others in its place");
            cache.insert(neighbour(5, other), statement());
        }
    }

    #[test]
    fn what_is_no_longer_asked_for_makes_room() {
        let mut cache = Cache::default();
        cache.insert(key(5), statement());
        for _ in 0..70_000 {
            cache.get(key(5));
        }
        for other in 1..100 {
            cache.insert(neighbour(5, other), statement());
        }
        assert_eq!(cache.get(key(5)), None);
    }

    #[test]
    fn the_last_home_reaches_around_to_the_first() {
        let mut cache = Cache::default();
        let all = || (0..REACH as u64).map(|number| neighbour(CAPACITY as u64 - 1, number));
        all().for_each(|key| cache.insert(key, statement()));
        assert!(all().all(|key| cache.get(key).is_some()));
    }
}
