//! The checker of lists that only grow.
//!
//! All is measured against the lists at the end, which were read when nobody wrote any more. A list that was read has to
//! be a beginning of its last one, so how long it was says all of what it had seen.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::Duration;

use super::{Kind, Violation};
use crate::history::{Operation, Outcome};
use crate::lists::{Isolation, Key, Node, Step, Transaction, Value};

/// How fresh reads have to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reads {
    /// All come from the primary: whatever was acknowledged to anybody before.
    Newest,
    /// Some come from replicas: whatever was acknowledged to the same client before, and whatever was shown to anybody.
    Own,
}

type Op = Operation<Transaction>;

/// The lists at the end, and where in them each value is.
struct Last<'a> {
    lists: &'a BTreeMap<Key, Vec<Value>>,
    /// How long the list was with the value as its last.
    lengths: HashMap<(Key, Value), usize>,
}

impl<'a> Last<'a> {
    fn of(lists: &'a BTreeMap<Key, Vec<Value>>) -> Last<'a> {
        let mut lengths = HashMap::new();
        for (key, list) in lists {
            for (at, value) in list.iter().enumerate() {
                lengths.entry((*key, *value)).or_insert(at + 1);
            }
        }
        Last { lists, lengths }
    }

    fn list(&self, key: Key) -> &'a [Value] {
        self.lists.get(&key).map_or(&[], Vec::as_slice)
    }

    fn length_with(&self, key: Key, value: Value) -> Option<usize> {
        self.lengths.get(&(key, value)).copied()
    }
}

/// Everything that is wrong with the history. `last`: the lists when all was over.
pub fn check(history: &[Op], last: &BTreeMap<Key, Vec<Value>>, reads: Reads) -> Vec<Violation> {
    let last = Last::of(last);
    let mut writers: HashMap<(Key, Value), &Op> = HashMap::new();
    for op in history {
        for (key, value) in appends(op) {
            writers.insert((key, value), op);
        }
    }
    let mut found = Vec::new();
    check_last(&last, &writers, &mut found);
    check_acknowledged(history, &last, &mut found);
    for op in history.iter().filter(|op| op.outcome == Outcome::Ok) {
        check_within(op, &mut found);
        for (key, list) in others_reads(op) {
            check_read(op, key, list, &last, &writers, &mut found);
        }
    }
    check_clients(history, &last, &mut found);
    check_shown(history, &mut found);
    if reads == Reads::Newest {
        check_newest(history, &last, &mut found);
    }
    found
}

fn appends(op: &Op) -> impl Iterator<Item = (Key, Value)> + '_ {
    op.act.steps.iter().filter_map(|step| match step {
        Step::Append(key, value) => Some((*key, *value)),
        Step::Read(..) => None,
    })
}

/// The lists that an acknowledged transaction read.
fn others_reads(op: &Op) -> impl Iterator<Item = (Key, &[Value])> {
    op.act.steps.iter().filter_map(|step| match step {
        Step::Read(key, Some(list)) => Some((*key, list.as_slice())),
        _ => None,
    })
}

fn who(op: &Op) -> String {
    format!("process {} at {:.3} s", op.process, op.invoked.as_secs_f64())
}

/// Nothing is there twice, nothing that was refused, nothing out of nowhere, and nothing before what was there already.
fn check_last(last: &Last<'_>, writers: &HashMap<(Key, Value), &Op>, found: &mut Vec<Violation>) {
    for (key, list) in last.lists {
        let mut seen = BTreeSet::new();
        for value in list {
            if !seen.insert(*value) {
                found.push(Violation::new(Kind::Doubled, format!("{value} is in list {key} twice")));
            }
            match writers.get(&(*key, *value)) {
                None => found.push(Violation::new(
                    Kind::Unknown,
                    format!("{value} is in list {key}, and nobody appended it"),
                )),
                Some(op) if op.outcome == Outcome::Fail => found.push(Violation::new(
                    Kind::Aborted,
                    format!("{value} is in list {key}, and was refused to {}", who(op)),
                )),
                Some(_) => {}
            }
        }
        // From the end: the first to be acknowledged of all that stand behind.
        let mut behind: Option<(Duration, Value)> = None;
        for value in list.iter().rev() {
            let Some(op) = writers.get(&(*key, *value)) else { continue };
            if let Some((acknowledged, later)) = behind
                && acknowledged < op.invoked
            {
                found.push(Violation::new(
                    Kind::Reordered,
                    format!(
                        "in list {key} {value} stands before {later}, which was acknowledged before {} began",
                        who(op)
                    ),
                ));
            }
            if op.outcome == Outcome::Ok && behind.is_none_or(|(first, _)| op.completed < first) {
                behind = Some((op.completed, *value));
            }
        }
    }
}

fn check_acknowledged(history: &[Op], last: &Last<'_>, found: &mut Vec<Violation>) {
    for op in history.iter().filter(|op| op.outcome == Outcome::Ok) {
        for (key, value) in appends(op).filter(|(key, value)| last.length_with(*key, *value).is_none()) {
            let detail = format!("{value} is not in list {key}, and was acknowledged to {}", who(op));
            found.push(Violation::new(Kind::Lost, detail));
        }
    }
}

/// A transaction against itself.
fn check_within(op: &Op, found: &mut Vec<Violation>) {
    let mut written: HashMap<Key, Vec<Value>> = HashMap::new();
    let mut expected: HashMap<Key, Vec<Value>> = HashMap::new();
    for step in &op.act.steps {
        match step {
            Step::Append(key, value) => {
                written.entry(*key).or_default().push(*value);
                if let Some(list) = expected.get_mut(key) {
                    list.push(*value);
                }
            }
            Step::Read(key, Some(list)) => {
                if written.get(key).is_some_and(|own| !list.ends_with(own)) {
                    let detail = format!("{} read list {key} as {list:?} behind its own appends", who(op));
                    found.push(Violation::new(Kind::Internal, detail));
                }
                let one_state =
                    matches!(op.act.block, Some(Isolation::RepeatableRead | Isolation::Serializable));
                if let Some(before) = expected.insert(*key, list.clone()).filter(|_| one_state)
                    && before != *list
                {
                    let detail = format!("{} read list {key} as {before:?} and then {list:?}", who(op));
                    found.push(Violation::new(Kind::Unrepeatable, detail));
                }
            }
            Step::Read(_, None) => {}
        }
    }
}

/// A list that was read against what it became.
fn check_read(
    op: &Op,
    key: Key,
    list: &[Value],
    last: &Last<'_>,
    writers: &HashMap<(Key, Value), &Op>,
    found: &mut Vec<Violation>,
) {
    let became = last.list(key);
    let same = list.iter().zip(became).take_while(|(read, became)| read == became).count();
    if same < list.len() {
        let odd = list[same];
        let kind = match writers.get(&(key, odd)).map(|writer| writer.outcome) {
            None => Kind::Unknown,
            Some(Outcome::Fail) => Kind::Aborted,
            Some(Outcome::Ok | Outcome::Info) => Kind::Fork,
        };
        let detail = format!("{} read list {key} as {list:?}, which became {became:?}", who(op));
        found.push(Violation::new(kind, detail));
    }
    // Whoever appends holds the list, so what a transaction appended stands together.
    let Some(newest) = list.last() else { return };
    let Some(writer) = writers.get(&(key, *newest)).filter(|writer| !std::ptr::eq(**writer, op)) else {
        return;
    };
    let final_append = appends(writer).filter(|(to, _)| *to == key).last();
    if final_append != Some((key, *newest)) {
        let detail = format!("{} read list {key} up to {newest}, in the middle of {}", who(op), who(writer));
        found.push(Violation::new(Kind::Intermediate, detail));
    }
}

/// Each client by itself: it does one thing after the other. A replica may show what waits for its standby on the primary,
/// which shows it later.
fn check_clients(history: &[Op], last: &Last<'_>, found: &mut Vec<Violation>) {
    let mut by_client: BTreeMap<u32, Vec<&Op>> = BTreeMap::new();
    for op in history {
        by_client.entry(op.client).or_default().push(op);
    }
    for ops in by_client.values_mut() {
        ops.sort_by_key(|op| op.invoked);
        // How long each list was with the last of what was acknowledged, and when the primary was read last.
        let (mut acknowledged, mut seen) = (HashMap::new(), HashMap::new());
        for op in ops.iter().filter(|op| op.outcome == Outcome::Ok) {
            for (key, list) in others_reads(op) {
                if list.len() < acknowledged.get(&key).copied().unwrap_or(0) {
                    let detail = format!("{} read list {key} as {list:?}, without its own", who(op));
                    found.push(Violation::new(Kind::StaleOwn, detail));
                }
                if op.act.by == Node::Replica {
                    continue;
                }
                let before = seen.entry(key).or_insert(0);
                if list.len() < *before {
                    let detail =
                        format!("{} read list {key} as {list:?}, and {before} values of it before", who(op));
                    found.push(Violation::new(Kind::Backwards, detail));
                }
                *before = list.len().max(*before);
            }
            for (key, value) in appends(op) {
                let length = last.length_with(key, value).unwrap_or(0);
                let longest = acknowledged.entry(key).or_insert(0);
                *longest = length.max(*longest);
            }
        }
    }
}

/// Every read against whatever had been acknowledged before it began.
fn check_newest(history: &[Op], last: &Last<'_>, found: &mut Vec<Violation>) {
    let mut grown = Grown::default();
    for op in history.iter().filter(|op| op.outcome == Outcome::Ok) {
        for (key, value) in appends(op) {
            grown.note(key, op.completed, last.length_with(key, value).unwrap_or(0));
        }
    }
    grown.sort();
    for op in history.iter().filter(|op| op.outcome == Outcome::Ok) {
        for (key, list) in others_reads(op) {
            let needed = grown.before(key, op.invoked);
            if list.len() < needed {
                let detail = format!(
                    "{} read list {key} as {list:?}, when {needed} values of it had been acknowledged",
                    who(op)
                );
                found.push(Violation::new(Kind::Stale, detail));
            }
        }
    }
}

/// Every read on a replica against whatever had been shown to anybody before it began.
fn check_shown(history: &[Op], found: &mut Vec<Violation>) {
    let mut grown = Grown::default();
    for op in history.iter().filter(|op| op.outcome == Outcome::Ok) {
        for (key, list) in others_reads(op) {
            grown.note(key, op.completed, list.len());
        }
    }
    grown.sort();
    for op in history.iter().filter(|op| op.outcome == Outcome::Ok && op.act.by == Node::Replica) {
        for (key, list) in others_reads(op) {
            let needed = grown.before(key, op.invoked);
            if list.len() < needed {
                let detail = format!(
                    "{} read list {key} on a replica as {list:?}, when {needed} values of it had been shown",
                    who(op)
                );
                found.push(Violation::new(Kind::Backwards, detail));
            }
        }
    }
}

/// By list: when it was known to be how long.
#[derive(Default)]
struct Grown(HashMap<Key, Vec<(Duration, usize)>>);

impl Grown {
    fn note(&mut self, key: Key, at: Duration, length: usize) {
        self.0.entry(key).or_default().push((at, length));
    }

    /// After all was noted: both grow.
    fn sort(&mut self) {
        for steps in self.0.values_mut() {
            steps.sort();
            let mut longest = 0;
            for (_, length) in steps {
                longest = longest.max(*length);
                *length = longest;
            }
        }
    }

    /// How long it was known to be before then.
    fn before(&self, key: Key, then: Duration) -> usize {
        let steps = self.0.get(&key).map_or(&[][..], Vec::as_slice);
        let before = steps.partition_point(|(at, _)| *at < then);
        before.checked_sub(1).map_or(0, |at| steps[at].1)
    }
}

#[cfg(test)]
mod tests;
