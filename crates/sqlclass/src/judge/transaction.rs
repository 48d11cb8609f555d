//! Transaction control, as the grammar has it.

use pg_raw_parse::list::NodeList;
use pg_raw_parse::raw::TransactionStmtKind;
use pg_raw_parse::{ConstValue, Node, nodes};

use super::constant;
use crate::transaction::{Access, Command, Deferrable, Isolation, Modes, Next};

pub(super) fn command(statement: &nodes::TransactionStmt) -> Command {
    let next = if statement.chain { Next::Chain } else { Next::Nothing };
    match statement.kind {
        TransactionStmtKind::TRANS_STMT_COMMIT => Command::Commit(next),
        TransactionStmtKind::TRANS_STMT_ROLLBACK => Command::Rollback(next),
        TransactionStmtKind::TRANS_STMT_SAVEPOINT => Command::Savepoint,
        TransactionStmtKind::TRANS_STMT_RELEASE => Command::Release,
        TransactionStmtKind::TRANS_STMT_ROLLBACK_TO => Command::RollbackTo,
        TransactionStmtKind::TRANS_STMT_PREPARE => Command::Prepare,
        TransactionStmtKind::TRANS_STMT_COMMIT_PREPARED => Command::CommitPrepared,
        TransactionStmtKind::TRANS_STMT_ROLLBACK_PREPARED => Command::RollbackPrepared,
        _ => Command::Begin(modes(statement.options())),
    }
}

/// The modes in a list of options. Of two that contradict each other the last holds.
pub(super) fn modes(options: &NodeList) -> Modes {
    let mut modes = Modes::default();
    for option in options {
        let Node::DefElem(option) = option else { continue };
        let value = constant(Some(option.arg()));
        let is_set = matches!(value, Some(ConstValue::Integer(1..)));
        match option.defname() {
            Some("transaction_isolation") => {
                if let Some(ConstValue::String(level)) = value {
                    modes.isolation = isolation(level);
                }
            }
            Some("transaction_read_only") => {
                modes.access = Some(if is_set { Access::ReadOnly } else { Access::ReadWrite });
            }
            Some("transaction_deferrable") => {
                modes.deferrable =
                    Some(if is_set { Deferrable::Deferrable } else { Deferrable::NotDeferrable });
            }
            _ => {}
        }
    }
    modes
}

fn isolation(level: &str) -> Option<Isolation> {
    Some(match level {
        "read uncommitted" => Isolation::ReadUncommitted,
        "read committed" => Isolation::ReadCommitted,
        "repeatable read" => Isolation::RepeatableRead,
        "serializable" => Isolation::Serializable,
        _ => return None,
    })
}
