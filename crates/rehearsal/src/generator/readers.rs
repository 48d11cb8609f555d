//! Who reads, and keeps a connection meanwhile.
//!
//! Browsers keep connections that they do not use, and apps have to bear that. But what may be open at once is limited, for a
//! process by its descriptors, and a crowd of readers must not use it up: when no connection is left for somebody who asks,
//! whoever has read the longest loses the one that is kept.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;

use crate::client::Connection;

/// Connections of one visitor that are not in use.
pub type Idle = RefCell<Vec<Connection>>;

/// Of one thread. As many as there are visitors at the most.
#[derive(Default)]
pub struct Readers {
    /// In the order in which they began to read.
    reading: RefCell<BTreeMap<u64, Rc<Idle>>>,
    next: Cell<u64>,
}

impl Readers {
    /// Somebody reads, until what is returned is dropped.
    pub fn enter(&self, idle: &Rc<Idle>) -> Reading<'_> {
        let number = self.next.replace(self.next.get() + 1);
        if !idle.borrow().is_empty() {
            self.reading.borrow_mut().insert(number, Rc::clone(idle));
        }
        Reading { readers: self, number }
    }

    /// Closes the kept connection of whoever has read the longest and still has one.
    pub fn make_room(&self) {
        let mut reading = self.reading.borrow_mut();
        while let Some((_, idle)) = reading.pop_first() {
            let mut idle = idle.borrow_mut();
            if !idle.is_empty() {
                idle.clear();
                return;
            }
        }
    }
}

pub struct Reading<'a> {
    readers: &'a Readers,
    number: u64,
}

impl Drop for Reading<'_> {
    fn drop(&mut self) {
        self.readers.reading.borrow_mut().remove(&self.number);
    }
}
