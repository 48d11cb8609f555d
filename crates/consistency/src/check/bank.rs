//! The checker of accounts between which money moves.

use std::collections::{BTreeMap, BTreeSet};

use super::{Kind, Violation};
use crate::bank::{ACCOUNTS, BEGINNING, Banking, Transfer};
use crate::history::{Operation, Outcome};

/// What stood in the tables when all was over.
#[derive(Debug, Clone, Default)]
pub struct Books {
    /// By account.
    pub balances: Vec<i64>,
    pub ledger: Vec<Transfer>,
}

const TOTAL: i64 = BEGINNING * ACCOUNTS as i64;

/// Everything that is wrong with the history.
pub fn check(history: &[Operation<Banking>], last: &Books) -> Vec<Violation> {
    let mut found = Vec::new();
    let mut asked: BTreeMap<u32, (Transfer, Outcome)> = BTreeMap::new();
    for op in history {
        match &op.act {
            Banking::Transfer(transfer) => {
                asked.insert(transfer.id, (*transfer, op.outcome));
            }
            Banking::Look(Some(balances)) if op.outcome == Outcome::Ok => {
                let at = op.invoked.as_secs_f64();
                check_total(&format!("process {} at {at:.3} s", op.process), balances, &mut found);
            }
            Banking::Look(_) => {}
        }
    }
    check_total("the end", &last.balances, &mut found);
    check_ledger(&asked, &last.ledger, &mut found);
    let mut balances = vec![BEGINNING; ACCOUNTS as usize];
    for transfer in &last.ledger {
        balances[transfer.from as usize] -= i64::from(transfer.amount);
        balances[transfer.to as usize] += i64::from(transfer.amount);
    }
    if balances != last.balances {
        let detail = format!("the balances are {:?}, and by the ledger {balances:?}", last.balances);
        found.push(Violation::new(Kind::Total, detail));
    }
    found
}

fn check_total(who: &str, balances: &[i64], found: &mut Vec<Violation>) {
    let total: i64 = balances.iter().sum();
    if total != TOTAL || balances.len() != ACCOUNTS as usize {
        let detail = format!("{who} found {total} instead of {TOTAL}: {balances:?}");
        found.push(Violation::new(Kind::Total, detail));
    }
}

fn check_ledger(asked: &BTreeMap<u32, (Transfer, Outcome)>, ledger: &[Transfer], found: &mut Vec<Violation>) {
    let mut there = BTreeSet::new();
    for transfer in ledger {
        let id = transfer.id;
        if !there.insert(id) {
            found.push(Violation::new(Kind::Doubled, format!("transfer {id} was made twice")));
        }
        match asked.get(&id) {
            Some((wanted, Outcome::Ok | Outcome::Info)) if wanted == transfer => {}
            Some((_, Outcome::Fail)) => {
                found.push(Violation::new(Kind::Aborted, format!("transfer {id} was refused, and made")));
            }
            _ => found.push(Violation::new(
                Kind::Unknown,
                format!("transfer {id} was made as nobody asked for: {transfer:?}"),
            )),
        }
    }
    for (id, (transfer, outcome)) in asked {
        if *outcome == Outcome::Ok && !there.contains(id) {
            found.push(Violation::new(Kind::Lost, format!("transfer {id} was acknowledged: {transfer:?}")));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn transfer(id: u32) -> Transfer {
        Transfer { id, from: 0, to: 1, amount: 10 }
    }

    fn op(act: Banking, outcome: Outcome) -> Operation<Banking> {
        let at = Duration::from_millis;
        Operation { client: 0, process: 0, invoked: at(1), completed: at(2), outcome, error: None, act }
    }

    /// The accounts after so many transfers of ten from the first to the second.
    fn balances(transfers: i64) -> Vec<i64> {
        let mut balances = vec![BEGINNING; ACCOUNTS as usize];
        balances[0] -= 10 * transfers;
        balances[1] += 10 * transfers;
        balances
    }

    fn kinds(history: &[Operation<Banking>], balances: Vec<i64>, ledger: &[u32]) -> Vec<Kind> {
        let books = Books { balances, ledger: ledger.iter().map(|id| transfer(*id)).collect() };
        check(history, &books).into_iter().map(|violation| violation.kind).collect()
    }

    #[test]
    fn money_that_only_moves_is_in_order_whether_or_not_what_nobody_said_was_done() {
        let history = [
            op(Banking::Transfer(transfer(1)), Outcome::Ok),
            op(Banking::Transfer(transfer(2)), Outcome::Info),
            op(Banking::Transfer(transfer(3)), Outcome::Fail),
            op(Banking::Look(Some(balances(1))), Outcome::Ok),
        ];
        assert_eq!(kinds(&history, balances(1), &[1]), []);
        assert_eq!(kinds(&history, balances(2), &[1, 2]), []);
    }

    #[test]
    fn a_transfer_that_is_lost_doubled_or_out_of_nowhere_is_found() {
        let history = [
            op(Banking::Transfer(transfer(1)), Outcome::Ok),
            op(Banking::Transfer(transfer(2)), Outcome::Fail),
        ];
        assert_eq!(kinds(&history, balances(0), &[]), [Kind::Lost]);
        assert_eq!(kinds(&history, balances(2), &[1, 1]), [Kind::Doubled]);
        assert_eq!(kinds(&history, balances(2), &[1, 2]), [Kind::Aborted]);
        assert_eq!(kinds(&history, balances(2), &[1, 7]), [Kind::Unknown]);
    }

    #[test]
    fn a_transfer_that_was_half_done_is_found() {
        let history = [op(Banking::Transfer(transfer(1)), Outcome::Ok)];
        let mut half = balances(1);
        half[1] -= 10;
        assert_eq!(kinds(&history, half, &[1]), [Kind::Total, Kind::Total]);
        assert_eq!(
            kinds(&history, balances(2), &[1]),
            [Kind::Total],
            "twice on the accounts, once in the ledger"
        );
    }

    #[test]
    fn a_look_at_two_states_at_once_is_found() {
        let mut torn = balances(0);
        torn[0] -= 10;
        let history = [op(Banking::Look(Some(torn.clone())), Outcome::Ok)];
        assert_eq!(kinds(&history, balances(0), &[]), [Kind::Total]);
        let history = [op(Banking::Look(Some(torn)), Outcome::Fail)];
        assert_eq!(kinds(&history, balances(0), &[]), [], "what was refused says nothing");
    }
}
