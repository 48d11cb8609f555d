//! Accounts between which money moves: none is made, none is lost, and every look at all of them finds the same total.

use std::fmt::Write;

use fastrand::Rng;

use crate::history::{Act, Known};

pub const ACCOUNTS: u32 = 8;
/// What each account begins with.
pub const BEGINNING: i64 = 1_000;
const MOST_AT_ONCE: u32 = 20;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Transfer {
    /// Given once. It stands in the ledger, written in the same transaction.
    pub id: u32,
    pub from: u32,
    pub to: u32,
    pub amount: u32,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Banking {
    Transfer(Transfer),
    /// The balances by account, once they are known.
    Look(Option<Vec<i64>>),
}

impl Banking {
    pub fn any(id: u32, rng: &mut Rng) -> Banking {
        if rng.u32(..3) == 0 {
            return Banking::Look(None);
        }
        let from = rng.u32(..ACCOUNTS);
        let to = (from + rng.u32(1..ACCOUNTS)) % ACCOUNTS;
        Banking::Transfer(Transfer { id, from, to, amount: rng.u32(1..=MOST_AT_ONCE) })
    }
}

impl Act for Banking {
    fn function(&self) -> &'static str {
        match self {
            Banking::Transfer(_) => "transfer",
            Banking::Look(_) => "read",
        }
    }

    fn write(&self, known: Known, out: &mut String) {
        // Writing to a String cannot fail.
        let _ = match self {
            Banking::Transfer(Transfer { from, to, amount, .. }) => {
                write!(out, "{{:from {from}, :to {to}, :amount {amount}}}")
            }
            Banking::Look(Some(balances)) if known == Known::Answered => {
                let balances: Vec<String> = balances
                    .iter()
                    .enumerate()
                    .map(|(account, balance)| format!("{account} {balance}"))
                    .collect();
                write!(out, "{{{}}}", balances.join(", "))
            }
            Banking::Look(_) => write!(out, "nil"),
        };
    }
}
