//! `statements.txt`, read, and verdicts written as it writes them.

use std::collections::BTreeSet;

use sqlclass::{Because, Class, Command, Flag, Modes, Next, SearchPath, Statement};

const TEXT: &str = include_str!("statements.txt");

/// One line of the table.
pub struct Row {
    pub line: usize,
    pub search_path: String,
    pub search_path_id: u64,
    pub sql: String,
    /// The words on the left.
    pub expected: BTreeSet<String>,
    pub answers: Answers,
}

/// What a read says when it is asked twice.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Answers {
    Same,
    New,
}

pub fn rows() -> Vec<Row> {
    let (mut search_path, mut search_path_id) = ("public".to_owned(), 0);
    let mut rows = Vec::new();
    for (at, line) in TEXT.lines().enumerate() {
        if let Some(schemas) = line.strip_prefix("@search_path ") {
            (search_path, search_path_id) = (schemas.to_owned(), search_path_id + 1);
            continue;
        }
        let Some((left, sql)) = line.split_once('|').filter(|_| !line.starts_with(['#', '='])) else {
            continue;
        };
        let mut expected: BTreeSet<String> = left.split_whitespace().map(str::to_owned).collect();
        let answers = if expected.remove("~") { Answers::New } else { Answers::Same };
        let sql = sql.strip_prefix(' ').unwrap_or(sql).replace('␤', "\n").replace('␉', "\t");
        let search_path = search_path.clone();
        rows.push(Row { line: at + 1, search_path, search_path_id, sql, expected, answers });
    }
    rows
}

impl Row {
    pub fn path(&self) -> SearchPath {
        SearchPath::of(self.search_path.split(", "))
    }
}

/// A verdict in the words of the table.
pub fn words(statement: Statement) -> BTreeSet<String> {
    let mut words = BTreeSet::new();
    match statement.class {
        Class::Transaction(command) => {
            words.insert("transaction".to_owned());
            words.extend(command_words(command));
        }
        class => {
            words.insert(kebab(class));
        }
    }
    if !matches!(statement.because, Because::Read | Because::Kind) {
        words.insert(kebab(statement.because));
    }
    // That a read can be done again goes without saying.
    let is_obvious = |flag: &Flag| *flag == Flag::RetrySafe && statement.class == Class::Read;
    let flags = statement.flags.iter().filter(|flag| !is_obvious(flag));
    words.extend(flags.map(|flag| format!("+{}", kebab(flag))));
    words.extend(statement.pins.iter().map(|pin| format!("pin:{}", kebab(pin))));
    words
}

fn command_words(command: Command) -> Vec<String> {
    let one = |word: &str| vec![word.to_owned()];
    match command {
        Command::Begin(modes) => [one("begin"), mode_words(modes)].concat(),
        Command::SetModes(modes) => [one("set-modes"), mode_words(modes)].concat(),
        Command::Commit(Next::Chain) => [one("commit"), one("chain")].concat(),
        Command::Commit(Next::Nothing) => one("commit"),
        Command::Rollback(Next::Chain) => [one("rollback"), one("chain")].concat(),
        Command::Rollback(Next::Nothing) => one("rollback"),
        other => vec![kebab(other)],
    }
}

fn mode_words(modes: Modes) -> Vec<String> {
    let words = [modes.access.map(kebab), modes.isolation.map(kebab), modes.deferrable.map(kebab)];
    words.into_iter().flatten().collect()
}

/// `NoTransactionBlock` as `no-transaction-block`.
fn kebab(value: impl std::fmt::Debug) -> String {
    let mut word = String::new();
    for (at, c) in format!("{value:?}").chars().enumerate() {
        if c.is_uppercase() && at > 0 {
            word.push('-');
        }
        word.extend(c.to_lowercase());
    }
    word
}
