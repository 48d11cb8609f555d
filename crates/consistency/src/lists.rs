//! Lists that only grow: what their transactions do, and which are made.
//!
//! An append can be recognised wherever it is read, so the order in which a list grew tells the order of the transactions
//! behind it. This is the workload that Elle calls list-append.

use std::fmt::Write;

use fastrand::Rng;

use crate::history::{Act, Known};

pub type Key = u32;
/// Given once in a list, from 1 on.
pub type Value = u32;

/// Lists in use at once: few, so that clients meet.
const ACTIVE: usize = 8;
/// Then another list takes its place: what is read must not grow for ever.
const APPENDS_PER_LIST: Value = 64;
const MOST_STEPS: usize = 4;

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    Append(Key, Value),
    /// `None` until it is known.
    Read(Key, Option<Vec<Value>>),
}

/// How much a transaction may see of others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Isolation {
    ReadCommitted,
    RepeatableRead,
    Serializable,
}

/// Some steps that happen together or not at all.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Transaction {
    /// `None`: one statement, without a block.
    pub block: Option<Isolation>,
    pub steps: Vec<Step>,
    /// Who has answered, as far as that is asked: the primary answers all but single reads.
    pub by: Node,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Node {
    Primary,
    Replica,
}

impl Transaction {
    pub fn writes(&self) -> bool {
        self.steps.iter().any(|step| matches!(step, Step::Append(..)))
    }
}

impl Act for Transaction {
    fn function(&self) -> &'static str {
        "txn"
    }

    fn write(&self, known: Known, out: &mut String) {
        out.push('[');
        for (at, step) in self.steps.iter().enumerate() {
            if at > 0 {
                out.push(' ');
            }
            // Writing to a String cannot fail.
            let _ = match step {
                Step::Append(key, value) => write!(out, "[:append {key} {value}]"),
                Step::Read(key, Some(list)) if known == Known::Answered => {
                    let list: Vec<String> = list.iter().map(Value::to_string).collect();
                    write!(out, "[:r {key} [{}]]", list.join(" "))
                }
                Step::Read(key, _) => write!(out, "[:r {key} nil]"),
            };
        }
        out.push(']');
    }
}

/// Makes transactions. All clients share one, so that no value is given twice.
#[derive(Debug)]
pub struct Lists {
    /// Each with the next value to append.
    active: Vec<(Key, Value)>,
    next: Key,
}

impl Default for Lists {
    fn default() -> Lists {
        let active = (0..ACTIVE as Key).map(|key| (key, 1)).collect();
        Lists { active, next: ACTIVE as Key }
    }
}

impl Lists {
    /// A statement of its own as often as a block of some.
    pub fn transaction(&mut self, rng: &mut Rng) -> Transaction {
        if rng.bool() {
            return self.single(rng);
        }
        let isolation =
            [Isolation::ReadCommitted, Isolation::RepeatableRead, Isolation::Serializable][rng.usize(..3)];
        let mut steps: Vec<Step> = (0..rng.usize(1..=MOST_STEPS))
            .map(|_| if rng.bool() { self.append(rng) } else { self.read(rng) })
            .collect();
        // Appends lock their lists: in one order, or clients would wait for the server to find out that they wait for
        // each other.
        let mut appends: Vec<Step> =
            steps.iter().filter(|step| matches!(step, Step::Append(..))).cloned().collect();
        appends.sort_by_key(|step| match step {
            Step::Append(key, value) => (*key, *value),
            Step::Read(key, _) => (*key, 0),
        });
        let mut appends = appends.into_iter();
        for step in &mut steps {
            if matches!(step, Step::Append(..))
                && let Some(next) = appends.next()
            {
                *step = next;
            }
        }
        Transaction { block: Some(isolation), steps, by: Node::Primary }
    }

    /// A read, an append, or an append that returns what it made.
    fn single(&mut self, rng: &mut Rng) -> Transaction {
        let steps = match rng.usize(..4) {
            0 | 1 => vec![self.read(rng)],
            2 => vec![self.append(rng)],
            _ => {
                let append = self.append(rng);
                let (Step::Append(key, _) | Step::Read(key, _)) = append;
                vec![append, Step::Read(key, None)]
            }
        };
        Transaction { block: None, steps, by: Node::Primary }
    }

    fn append(&mut self, rng: &mut Rng) -> Step {
        let at = rng.usize(..self.active.len());
        let (key, value) = self.active[at];
        self.active[at] = if value < APPENDS_PER_LIST {
            (key, value + 1)
        } else {
            self.next += 1;
            (self.next - 1, 1)
        };
        Step::Append(key, value)
    }

    fn read(&self, rng: &mut Rng) -> Step {
        Step::Read(self.active[rng.usize(..self.active.len())].0, None)
    }
}
