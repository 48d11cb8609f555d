//! The door: connections of which nobody knows yet who is behind them.
//!
//! Whoever reaches the address may open one, and most of what it then costs to hold is ours. So there is a bound, and it
//! is not that of the clients: who has proven no password must take no client's place. Where the bound is reached, whoever
//! came first goes. A login takes milliseconds, so that is most likely one that only holds a place; were the new one
//! refused instead, a few who say nothing would keep everybody out.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio_util::sync::CancellationToken;

/// Logins under way at once, beyond as many as there may be clients: all of these may come back at once.
const BEYOND_CLIENTS: usize = 128;

/// How many may be at the door of a database that takes so many clients.
pub(crate) fn capacity(max_clients: u32) -> usize {
    (max_clients as usize).saturating_add(BEYOND_CLIENTS)
}

#[derive(Default)]
pub(crate) struct Door(Mutex<Waiting>);

#[derive(Default)]
struct Waiting {
    next: u64,
    /// In the order in which they came.
    places: BTreeMap<u64, CancellationToken>,
}

/// A place at the door.
pub(crate) struct Place {
    door: Arc<Door>,
    number: u64,
    taken_away: CancellationToken,
}

impl Door {
    /// Takes a place, and away from whoever came first what is beyond `capacity`. How many these were is said with it.
    pub fn come(self: &Arc<Door>, capacity: usize) -> (Place, usize) {
        let taken_away = CancellationToken::new();
        let mut waiting = self.waiting();
        let number = waiting.next;
        waiting.next += 1;
        waiting.places.insert(number, taken_away.clone());
        let beyond = waiting.places.len().saturating_sub(capacity.max(1));
        for _ in 0..beyond {
            if let Some((_, first)) = waiting.places.pop_first() {
                first.cancel();
            }
        }
        drop(waiting);
        (Place { door: self.clone(), number, taken_away }, beyond)
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Place {
    /// Comes in within this place. `None`: it was taken away, and `coming` is dropped where it stood.
    pub async fn come_in<T>(self, coming: impl Future<Output = T>) -> Option<T> {
        self.taken_away.run_until_cancelled(coming).await
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.door.waiting().places.remove(&self.number);
    }
}

#[cfg(test)]
mod tests {
    use std::future::{pending, ready};

    use super::*;

    #[tokio::test]
    async fn who_came_first_makes_room_and_who_came_in_needs_none() {
        let door = Arc::new(Door::default());
        let (first, _) = door.come(2);
        let (second, beyond) = door.come(2);
        assert_eq!(beyond, 0);
        assert_eq!(second.come_in(ready(7)).await, Some(7));
        let (_third, beyond) = door.come(2);
        assert_eq!(beyond, 0, "there is room again");
        let (fourth, beyond) = door.come(2);
        assert_eq!(beyond, 1);
        assert_eq!(first.come_in(pending::<()>()).await, None);
        assert_eq!(fourth.come_in(ready(8)).await, Some(8));
    }
}
