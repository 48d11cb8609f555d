//! What a value may be. The words a problem, the schema and the reference use for it come from here.

use model::{ByteSize, Cpu};

use super::Table;
use crate::{presets, units};

#[derive(Debug, Clone, Copy)]
pub(crate) enum Kind {
    Text(Shape),
    Choice(&'static [&'static str]),
    Flag,
    Integer {
        min: i64,
        max: i64,
    },
    /// A whole number, of which only some are in this version.
    Stage,
    /// Milliseconds, written with a unit.
    Duration {
        min_ms: u64,
        max_ms: u64,
    },
    Bytes {
        min: u64,
        max: u64,
    },
    Cores,
    /// `IP:PORT`, `:PORT` or a port.
    Address,
    /// Relative paths inside the app's folder.
    Paths,
    /// CIDR blocks.
    Networks,
    /// Names to texts, numbers and booleans.
    Environment,
    /// One requirement of the app under load, or several.
    Thresholds,
    /// Fields of a form to texts, numbers and booleans.
    Fields,
    /// Tables by names of the user's own.
    Named(&'static Table),
    /// One step of a visit, or several.
    Steps(&'static Table),
    Table(&'static Table),
    /// One of the names, or the table.
    ChoiceOrTable(&'static [&'static str], &'static Table),
}

/// What a text must look like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Shape {
    AppName,
    HostName,
    Command,
    HttpPath,
    /// A path relative to the app's folder, or an absolute one.
    FilePath,
    SystemUser,
    DatabaseName,
}

impl Kind {
    pub(crate) fn table(&self) -> Option<&'static Table> {
        match self {
            Kind::Table(table) | Kind::ChoiceOrTable(_, table) | Kind::Named(table) | Kind::Steps(table) => {
                Some(table)
            }
            _ => None,
        }
    }

    /// What is allowed, to follow "expected": `a whole number from 1 to 64`.
    pub(crate) fn expects(&self) -> String {
        match self {
            Kind::Text(shape) => shape.expects().to_owned(),
            Kind::Choice(names) => one_of(names),
            Kind::Flag => "`true` or `false`".to_owned(),
            Kind::Integer { min, max } => format!("a whole number from {min} to {max}"),
            Kind::Stage => format!("a stage, {}", presets::stages("or")),
            Kind::Duration { min_ms, max_ms } => format!(
                "a duration from \"{}\" to \"{}\" (a whole number with `ms`, `s`, `m` or `h`)",
                units::duration_text(*min_ms),
                units::duration_text(*max_ms)
            ),
            Kind::Bytes { min, max } => format!(
                "a size from \"{}\" to \"{}\" (a whole number with `kB`, `MB`, `GB` or `TB`)",
                ByteSize::from_bytes(*min),
                ByteSize::from_bytes(*max)
            ),
            Kind::Cores => format!(
                "a number of cores from {} to {}",
                f64::from(Cpu::MIN.millis()) / 1_000.0,
                Cpu::MAX.millis() / 1_000
            ),
            Kind::Address => {
                "an address \"IP:PORT\", \":PORT\" for every address of the machine, or a port for 127.0.0.1"
                    .to_owned()
            }
            Kind::Paths => "a list of paths inside the app's folder".to_owned(),
            Kind::Networks => "a list of networks such as \"10.0.0.0/8\"".to_owned(),
            Kind::Environment => "a table of names to texts, whole numbers or booleans".to_owned(),
            Kind::Thresholds => "a requirement such as \"p99 < 250ms\", or a list of them".to_owned(),
            Kind::Fields => "a table of fields to texts, whole numbers or booleans".to_owned(),
            Kind::Named(table) => format!("a table for each name, with {}", keys_of(table)),
            Kind::Steps(table) => format!("a table, or a list of tables, with {}", keys_of(table)),
            Kind::Table(table) => format!("a table with {}", keys_of(table)),
            Kind::ChoiceOrTable(names, table) => {
                format!("{}, or a table with {}", one_of(names), keys_of(table))
            }
        }
    }

    /// As [`Kind::expects`], but short enough to stand under a value.
    pub(crate) fn expects_briefly(&self) -> String {
        match self {
            Kind::Table(_) => "a table".to_owned(),
            Kind::Named(_) => "a table for each name".to_owned(),
            Kind::Steps(_) => "a table, or a list of tables".to_owned(),
            Kind::ChoiceOrTable(names, _) => format!("{}, or a table", one_of(names)),
            _ => self.expects(),
        }
    }

    /// The unit of the value, where it has one.
    pub(crate) fn unit(&self) -> Option<&'static str> {
        match self {
            Kind::Duration { .. } => Some("time, written with `ms`, `s`, `m` or `h`"),
            Kind::Bytes { .. } => Some("bytes, written with `kB`, `MB`, `GB` or `TB` (powers of 1024)"),
            Kind::Cores => Some("cores"),
            _ => None,
        }
    }
}

impl Shape {
    pub(crate) fn expects(self) -> &'static str {
        match self {
            Shape::AppName => {
                "a name: lower-case letters, digits and `-`, beginning with a letter, at most 40 characters"
            }
            Shape::HostName => "a host name such as \"www.example.com\"",
            Shape::Command => "a command line in quotes",
            Shape::HttpPath => "a path that begins with `/`",
            Shape::FilePath => "the path of a file",
            Shape::SystemUser => "the name of a system user",
            Shape::DatabaseName => {
                "a database name: lower-case letters, digits and `_`, beginning with a letter, at most 63 characters"
            }
        }
    }
}

/// `"a"`, `"b"` or `"c"`.
pub(crate) fn one_of(names: &[&str]) -> String {
    let quoted: Vec<String> = names.iter().map(|name| format!("\"{name}\"")).collect();
    units::listed(&quoted, "or")
}

fn keys_of(table: &Table) -> String {
    let keys: Vec<String> = table.cards.iter().map(|card| format!("`{}`", card.key)).collect();
    units::listed(&keys, "and")
}
