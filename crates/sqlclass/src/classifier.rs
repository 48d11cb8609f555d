//! What a worker asks: the verdict on a text, from memory where there is one.

use crate::cache::Cache;
use crate::catalog::{Catalog, SearchPath};
use crate::fold::{Folded, Folder, Scope};
use crate::judge::{Context, classify};
use crate::statement::{Because, Class, Flag, Statement};

/// Folds, remembers and judges, for one worker. Takes some 200 KiB.
///
/// It must stay on a thread that stays: the parser keeps its state per thread, and a process has room for some hundreds.
pub struct Classifier {
    folder: Folder,
    cache: Cache,
}

/// What a session's texts are judged by.
#[derive(Clone, Copy)]
pub struct Session<'a> {
    pub catalog: &'a Catalog,
    pub search_path: &'a SearchPath,
    /// Another number for every other search path, for as long as the classifier lives.
    pub search_path_id: u64,
}

/// A statement, and how it was found out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Verdict {
    pub statement: Statement,
    pub source: Source,
}

/// Where a verdict comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    Cache,
    Parser,
    /// The text is too long to be looked at.
    Length,
}

impl Classifier {
    /// `seed` is a random number of this process; see [`Folder::new`].
    pub fn new(seed: u64) -> Classifier {
        Classifier { folder: Folder::new(seed), cache: Cache::default() }
    }

    /// The verdict on `sql`. Keys hold the epoch of the catalog: what an older one said is not found again.
    pub fn classify(&mut self, sql: &[u8], session: Session<'_>) -> Verdict {
        let Some(folded) = self.fold(sql, session) else {
            return Verdict { statement: Statement::unknown(Because::TooLong), source: Source::Length };
        };
        if let Some(statement) = self.cache.get(folded.key) {
            return Verdict { statement, source: Source::Cache };
        }
        let statement = judge(sql, session, folded);
        if !statement.flags.contains(Flag::ByLiteral) {
            self.cache.insert(folded.key, statement);
        }
        Verdict { statement, source: Source::Parser }
    }

    /// Remembers that a replica refused `sql`: texts of its key are for the primary, until the catalog is read anew.
    pub fn refused(&mut self, sql: &[u8], session: Session<'_>) {
        let Some(folded) = self.fold(sql, session) else { return };
        let mut statement = judge(sql, session, folded);
        if statement.class == Class::Read {
            (statement.class, statement.because) = (Class::Primary, Because::Refused);
            statement.flags.remove(Flag::RetrySafe);
        }
        self.cache.insert(folded.key, statement);
    }

    fn fold(&mut self, sql: &[u8], session: Session<'_>) -> Option<Folded> {
        let scope = Scope { epoch: session.catalog.epoch(), search_path: session.search_path_id };
        self.folder.fold(sql, scope)
    }
}

fn judge(sql: &[u8], session: Session<'_>, folded: Folded) -> Statement {
    let Session { catalog, search_path, .. } = session;
    classify(sql, Context { catalog, search_path, hint: folded.hint })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with_session<T>(ask: impl FnOnce(Session<'_>) -> T) -> T {
        let (catalog, search_path) = (Catalog::empty(), SearchPath::of(["public"]));
        ask(Session { catalog: &catalog, search_path: &search_path, search_path_id: 1 })
    }

    fn classify(classifier: &mut Classifier, sql: &str) -> Verdict {
        with_session(|session| classifier.classify(sql.as_bytes(), session))
    }

    #[test]
    fn a_statement_is_parsed_once_for_all_its_literals() {
        let mut classifier = Classifier::new(5);
        assert_eq!(classify(&mut classifier, "SELECT 1").source, Source::Parser);
        assert_eq!(classify(&mut classifier, "select  2").source, Source::Cache);
        assert_eq!(classify(&mut classifier, &" ".repeat(20_000)).source, Source::Length);
    }

    #[test]
    fn what_a_literal_decides_is_judged_each_time() {
        let mut classifier = Classifier::new(5);
        let mut class = |sql: &str| classify(&mut classifier, sql).statement.flags;
        assert!(!class("EXPLAIN (ANALYZE 1) SELECT 1").contains(Flag::Explain));
        assert!(class("EXPLAIN (ANALYZE 0) SELECT 1").contains(Flag::Explain));
    }

    #[test]
    fn what_a_replica_refused_is_for_the_primary_from_then_on() {
        let mut classifier = Classifier::new(5);
        assert_eq!(classify(&mut classifier, "SELECT 1").statement.class, Class::Read);
        with_session(|session| classifier.refused(b"SELECT 2", session));
        let Verdict { statement, source } = classify(&mut classifier, "SELECT 3");
        assert_eq!((statement.class, statement.because), (Class::Primary, Because::Refused));
        assert!(!statement.flags.contains(Flag::RetrySafe));
        assert_eq!(source, Source::Cache);
    }
}
