//! Prepared statements of clients on connections that change under them.
//!
//! A client's `Parse` names a statement in its own words. Here equal statements of all clients are one
//! [`Statement`] with a name of ours, under which it is prepared on a connection when somebody needs it there, and
//! stays for the next. Both sides are bounded: the cache forgets the statement that was looked up longest ago (clients
//! that hold it keep it), and a connection closes the one it used longest ago.
//!
//! PostgreSQL reads a text once, when it is parsed: names by the search path, literals by the time zone, `'today'` by the
//! day. So statements are equal when their [`Context`] is, too, and one that is of a moment is equal to no other.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, OnceLock};

use bytes::{BufMut, Bytes, BytesMut};

use crate::message::{cstr, message, until_nul};
use crate::statement::{Facts, is_of_a_moment, judge};

/// Statements known by their text at once, of all clients of a database.
const MAX_CACHED: usize = 5_000;
/// Statements prepared on one connection at once.
const MAX_ON_SERVER: usize = 500;

/// Given once in a process; 0 is nobody's.
pub(crate) type StatementId = u64;
/// What the names that we give begin with.
pub(crate) const OURS: &str = "pgproxy_";
/// Of a statement that no client can mean.
pub(crate) const NOBODYS: StatementId = StatementId::MAX;

/// A hash of everything but its text on which it depends what a statement means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Context(pub u64);

pub(crate) struct Statement {
    pub id: StatementId,
    /// Where it means the same to every client. `None`: it is of one client alone.
    pub context: Option<Context>,
    /// That a server knows it by.
    name: Box<str>,
    /// See [`Statement::facts`].
    facts: OnceLock<Facts>,
    /// What follows the name in a Parse message: text and types. `None`: too large to keep, so it exists only where it
    /// was prepared.
    definition: Option<Bytes>,
}

static NEXT_ID: AtomicU64 = AtomicU64::new(1);

impl Statement {
    /// `definition`: what follows the name in a Parse message.
    pub fn new(definition: &[u8]) -> Statement {
        Statement::of(Some(Bytes::copy_from_slice(definition)), None)
    }

    pub fn too_large_to_keep() -> Statement {
        Statement::of(None, None)
    }

    fn of(definition: Option<Bytes>, context: Option<Context>) -> Statement {
        let id = NEXT_ID.fetch_add(1, Relaxed);
        Statement { id, context, name: server_name(id).into(), facts: OnceLock::new(), definition }
    }

    /// See [`Statement::new`].
    pub fn definition(&self) -> Option<&[u8]> {
        self.definition.as_deref()
    }

    /// By its words, which are read when this is first asked: the grammar leaves nothing to them of most.
    pub fn facts(&self) -> &Facts {
        self.facts.get_or_init(|| self.text().map_or(Facts::UNKNOWN, judge))
    }

    /// Its text; `None` when that was too large to keep.
    pub fn text(&self) -> Option<&[u8]> {
        self.definition().map(until_nul)
    }

    pub fn write_name(&self, out: &mut BytesMut) {
        out.put_slice(self.name.as_bytes());
        out.put_u8(0);
    }

    /// Writes the Parse message that prepares it under our name, or under none; `false` when it cannot be.
    pub fn write_parse(&self, named: Named, out: &mut BytesMut) -> bool {
        let Some(definition) = &self.definition else { return false };
        message(out, b'P', |out| {
            match named {
                Named::Ours => self.write_name(out),
                Named::Unnamed => out.put_u8(0),
            }
            out.put_slice(definition);
        });
        true
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Named {
    Ours,
    Unnamed,
}

fn server_name(id: StatementId) -> String {
    format!("{OURS}{id}")
}

/// Of a name that we have given.
pub(crate) fn id_of(name: &[u8]) -> Option<StatementId> {
    std::str::from_utf8(name).ok()?.strip_prefix(OURS)?.parse().ok()
}

pub(crate) fn write_close(id: StatementId, out: &mut BytesMut) {
    message(out, b'C', |out| {
        out.put_u8(b'S');
        cstr(out, server_name(id).as_bytes());
    });
}

/// The statements of all clients of a database, by definition and what follows it here: the context.
#[derive(Default)]
pub(crate) struct Cache {
    known: Lru<Bytes, Arc<Statement>>,
    /// Of the one that is looked up.
    key: Vec<u8>,
}

impl Cache {
    /// The one that all clients share in this context; one of its own where it is of a moment.
    pub fn get_or_insert(&mut self, definition: &[u8], context: Context) -> Arc<Statement> {
        self.key.clear();
        self.key.extend_from_slice(definition);
        self.key.extend_from_slice(&context.0.to_ne_bytes());
        if let Some(statement) = self.known.touch(&self.key[..]) {
            return statement.clone();
        }
        if is_of_a_moment(until_nul(definition)) {
            return Arc::new(Statement::new(definition));
        }
        let key = Bytes::copy_from_slice(&self.key);
        let statement = Arc::new(Statement::of(Some(key.slice(..definition.len())), Some(context)));
        self.known.insert(key, statement.clone(), MAX_CACHED);
        statement
    }
}

/// The statements prepared on one connection.
#[derive(Default)]
pub(crate) struct OnServer {
    prepared: Lru<StatementId, ()>,
    /// There, but of no use: to be closed before anything is prepared. What comes in here was prepared, so there are
    /// never more than that.
    outdated: Vec<StatementId>,
}

impl OnServer {
    /// Whether it is prepared here; then it counts as used now.
    pub fn touch(&mut self, id: StatementId) -> bool {
        self.prepared.touch(&id).is_some()
    }

    /// Says that `id` is being prepared here, and which one must be closed for it.
    pub fn insert(&mut self, id: StatementId) -> Option<StatementId> {
        self.prepared.insert(id, (), MAX_ON_SERVER)
    }

    /// Says that closing it did not come about.
    pub fn restore(&mut self, id: StatementId) {
        self.prepared.insert(id, (), usize::MAX);
    }

    pub fn remove(&mut self, id: StatementId) {
        self.prepared.entries.remove(&id);
    }

    /// Says that it works no more, if it is one of ours.
    pub fn outdate(&mut self, id: StatementId) {
        if self.prepared.entries.remove(&id).is_some() {
            self.outdated.push(id);
        }
    }

    /// What is to be closed before anything is prepared.
    pub fn take_outdated(&mut self) -> Vec<StatementId> {
        std::mem::take(&mut self.outdated)
    }

    pub fn clear(&mut self) {
        self.outdated.clear();
        self.prepared.entries.clear();
    }
}

/// A bounded map that forgets what was used longest ago. Forgetting looks at all entries, which is rare: it happens
/// only when something new comes to a full map.
struct Lru<K, V> {
    entries: HashMap<K, (V, u64)>,
    clock: u64,
}

impl<K, V> Default for Lru<K, V> {
    fn default() -> Self {
        Lru { entries: HashMap::new(), clock: 0 }
    }
}

impl<K: std::hash::Hash + Eq + Clone, V> Lru<K, V> {
    fn touch<Q>(&mut self, key: &Q) -> Option<&V>
    where
        K: std::borrow::Borrow<Q>,
        Q: std::hash::Hash + Eq + ?Sized,
    {
        self.clock += 1;
        let (value, used) = self.entries.get_mut(key)?;
        *used = self.clock;
        Some(value)
    }

    fn insert(&mut self, key: K, value: V, limit: usize) -> Option<K> {
        self.clock += 1;
        let evicted = (self.entries.len() >= limit && !self.entries.contains_key(&key)).then(|| {
            let oldest = self.entries.iter().min_by_key(|(_, (_, used))| *used).map(|(key, _)| key.clone());
            oldest.inspect(|key| {
                self.entries.remove(key);
            })
        });
        self.entries.insert(key, (value, self.clock));
        evicted.flatten()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_statements_are_one_and_the_one_used_longest_ago_is_forgotten() {
        let mut cache = Cache::default();
        let mut id = |definition: &[u8]| cache.get_or_insert(definition, Context(1)).id;
        let first = id(b"select 1\0\0\0");
        for n in 0..MAX_CACHED - 1 {
            id(format!("select {n} + 1\0\0\0").as_bytes());
        }
        assert_eq!(id(b"select 1\0\0\0"), first);
        id(b"one too many\0\0\0");
        assert_eq!(id(b"select 1\0\0\0"), first);
        assert_eq!(cache.known.entries.len(), MAX_CACHED);
    }

    #[test]
    fn a_statement_is_another_in_another_context_and_each_time_when_it_is_of_a_moment() {
        let mut cache = Cache::default();
        let mut of = |definition: &[u8], context| cache.get_or_insert(definition, context);
        let [one, other] = [Context(1), Context(2)].map(|context| of(b"select 1\0\0\0", context));
        assert_ne!(one.id, other.id);
        assert_eq!(one.text(), other.text());
        let again = [(); 2].map(|()| of(b"select date 'today'\0\0\0", Context(1)));
        assert_ne!(again[0].id, again[1].id);
        assert_eq!(again[0].context, None);
    }

    #[test]
    fn a_connection_that_has_too_many_statements_names_the_one_to_close() {
        let mut server = OnServer::default();
        let evicted: Vec<_> = (1..=MAX_ON_SERVER as u64).filter_map(|id| server.insert(id)).collect();
        assert!(evicted.is_empty());
        assert!(server.touch(1));
        assert_eq!(server.insert(10_000), Some(2));
        assert!(!server.touch(2));
    }
}
