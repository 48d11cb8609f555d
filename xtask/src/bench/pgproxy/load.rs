//! What clients do: the scripts that come with pgbench.

use crate::failure::{Failure, Result};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Load {
    /// A row by its key, by the simple protocol.
    Select,
    /// The same as a statement that is prepared once.
    Prepared,
    /// Three updates, a select and an insert in a transaction block, by the simple protocol.
    TpcB,
}

impl Load {
    pub const ALL: [Load; 3] = [Load::Select, Load::Prepared, Load::TpcB];

    pub fn name(self) -> &'static str {
        match self {
            Load::Select => "select",
            Load::Prepared => "prepared",
            Load::TpcB => "tpcb",
        }
    }

    /// For people.
    pub fn title(self) -> &'static str {
        match self {
            Load::Select => "select by key, simple protocol",
            Load::Prepared => "select by key, prepared",
            Load::TpcB => "TPC-B, simple protocol",
        }
    }

    /// For pgbench.
    pub fn arguments(self) -> [&'static str; 4] {
        match self {
            Load::Select => ["-M", "simple", "-b", "select-only"],
            Load::Prepared => ["-M", "prepared", "-b", "select-only"],
            Load::TpcB => ["-M", "simple", "-b", "tpcb-like"],
        }
    }

    /// Of one transaction, BEGIN and END among them.
    pub fn queries(self) -> u32 {
        match self {
            Load::Select | Load::Prepared => 1,
            Load::TpcB => 7,
        }
    }

    pub fn named(name: &str) -> Result<Load> {
        let found = Load::ALL.into_iter().find(|load| load.name() == name);
        let names = Load::ALL.map(Load::name).join(", ");
        found.ok_or_else(|| Failure::usage(format!("no load `{name}`: there are {names}")))
    }
}

/// Whether reads may go to the replica.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Split {
    /// There is only a primary.
    Off,
    /// There is a replica, for those who can use it.
    On,
}

impl Split {
    pub fn title(self) -> &'static str {
        match self {
            Split::Off => "primary alone",
            Split::On => "primary and replica",
        }
    }

    pub fn named(name: &str) -> Result<Vec<Split>> {
        match name {
            "off" => Ok(vec![Split::Off]),
            "on" => Ok(vec![Split::On]),
            "both" => Ok(vec![Split::Off, Split::On]),
            other => Err(Failure::usage(format!("--split takes off, on or both, not `{other}`"))),
        }
    }
}
