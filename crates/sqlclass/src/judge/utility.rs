//! One statement, by its kind.

use pg_raw_parse::raw::{AlterTableType, CURSOR_OPT_HOLD, ReindexObjectType, VariableSetKind};
use pg_raw_parse::{ConstValue, Node, nodes};

use super::{Findings, call, constant, transaction};
use crate::catalog::Name;
use crate::set::Set;
use crate::statement::{Because, Class, Flag, Pin};
use crate::transaction::Command;

impl Findings<'_> {
    pub(super) fn statement(&mut self, node: Node<'_>) {
        match node {
            Node::SelectStmt(_)
            | Node::InsertStmt(_)
            | Node::UpdateStmt(_)
            | Node::DeleteStmt(_)
            | Node::MergeStmt(_) => self.query(node),
            Node::ExplainStmt(explain) => self.explain(explain),
            Node::CopyStmt(copy) => self.copy(copy),
            Node::DeclareCursorStmt(declare) => self.declare(declare),
            Node::TransactionStmt(statement) => {
                self.otherwise = Class::Transaction(transaction::command(statement));
            }
            Node::VariableSetStmt(set) => self.set(set),
            Node::ConstraintsSetStmt(_) => self.session([Flag::LocalSet]),
            Node::PrepareStmt(_) => self.pin(Pin::Prepare, [Flag::Details]),
            Node::DeallocateStmt(_) => self.session([Flag::Details]),
            Node::DiscardStmt(_) => self.session([Flag::Discard, Flag::Details]),
            Node::ListenStmt(_) => self.pin(Pin::Listen, [Flag::Listen, Flag::Details]),
            Node::UnlistenStmt(_) => self.session([Flag::Listen, Flag::Details]),
            Node::LoadStmt(_) => self.pin(Pin::Load, []),
            Node::VariableShowStmt(_) => self.primary([Flag::RetrySafe]),
            Node::FetchStmt(_) | Node::ClosePortalStmt(_) => self.primary([Flag::Cursor]),
            Node::NotifyStmt(_) => self.primary([Flag::Notify, Flag::Details]),
            Node::LockStmt(_) => self.certainly(Because::Lock),
            Node::CallStmt(call) => {
                if let Some(function) = call.funccall() {
                    self.query(Node::FuncCall(function));
                }
                self.primary([]);
            }
            Node::ExecuteStmt(execute) => {
                execute.params().iter().for_each(|value| self.query(value));
                self.primary([Flag::Details]);
            }
            Node::DoStmt(_)
            | Node::TruncateStmt(_)
            | Node::RefreshMatViewStmt(_)
            | Node::CheckPointStmt(_) => self.primary([]),
            _ => self.definition(node),
        }
    }

    /// What changes definitions, or keeps the house. A kind of statement that is unknown here is one of these.
    fn definition(&mut self, node: Node<'_>) {
        self.certainly(Because::Kind);
        if needs_no_transaction(node) {
            self.flags.insert(Flag::NoTransactionBlock);
        }
        match node {
            Node::CreateStmt(create) => self.created(create.relation()),
            Node::CreateSeqStmt(create) => self.created(create.sequence()),
            Node::ViewStmt(create) => self.created(create.view()),
            Node::CreateTableAsStmt(create) => {
                self.statement(create.query());
                self.created(create.into().and_then(|into| into.rel()));
            }
            Node::CreateFunctionStmt(create)
                if call::name(create.funcname()).is_some_and(Name::is_temporary) =>
            {
                self.pins.insert(Pin::TempTable);
            }
            Node::VacuumStmt(_) | Node::ClusterStmt(_) | Node::ReindexStmt(_) | Node::AlterSystemStmt(_) => {}
            _ => self.flags.insert(Flag::Ddl),
        }
    }

    fn explain(&mut self, explain: &nodes::ExplainStmt) {
        let analyze = explain.options().iter().find(|option| option.defname() == Some("analyze"));
        let runs = match analyze.map(|option| option.arg()) {
            None => false,
            Some(Node::None) => true,
            Some(value) => {
                // `(ANALYZE 0)` and `(ANALYZE 1)` have one key.
                self.flags.insert(Flag::ByLiteral);
                !is_off(value)
            }
        };
        let own = self.flags;
        self.statement(explain.query());
        if !runs {
            self.pins = Set::EMPTY;
            self.flags = own.union(Set::from_iter([Flag::Explain, Flag::RetrySafe]));
            if self.otherwise == Class::Session {
                self.otherwise = Class::Read;
            }
        }
    }

    fn copy(&mut self, copy: &nodes::CopyStmt) {
        match copy.relation() {
            Some(relation) => self.query(Node::RangeVar(relation)),
            None => self.statement(copy.query()),
        }
        // A file or a program is the server's.
        let through_the_client = copy.filename().is_none() && !copy.is_program;
        if copy.is_from || !through_the_client {
            self.certainly(Because::Kind);
        }
        if through_the_client {
            self.flags.insert(if copy.is_from { Flag::CopyIn } else { Flag::CopyOut });
        }
    }

    fn declare(&mut self, declare: &nodes::DeclareCursorStmt) {
        self.statement(declare.query());
        self.flags.insert(Flag::Cursor);
        if declare.options as u32 & CURSOR_OPT_HOLD != 0 {
            self.pins.insert(Pin::HoldCursor);
            self.certainly(Because::Kind);
        }
    }

    fn set(&mut self, set: &nodes::VariableSetStmt) {
        match (set.kind, set.name()) {
            (VariableSetKind::VAR_SET_MULTI, Some("TRANSACTION")) => {
                let modes = transaction::modes(set.args());
                self.otherwise = Class::Transaction(Command::SetModes(modes));
            }
            (VariableSetKind::VAR_SET_MULTI, Some("TRANSACTION SNAPSHOT")) => self.primary([]),
            _ if set.is_local => self.session([Flag::LocalSet, Flag::Details, Flag::RetrySafe]),
            _ => self.pin(Pin::Set, [Flag::Details, Flag::RetrySafe]),
        }
    }

    fn primary<const N: usize>(&mut self, flags: [Flag; N]) {
        self.certainly(Because::Kind);
        self.flags = self.flags.union(Set::from_iter(flags));
    }

    fn session<const N: usize>(&mut self, flags: [Flag; N]) {
        self.otherwise = Class::Session;
        self.flags = self.flags.union(Set::from_iter(flags));
    }

    fn pin<const N: usize>(&mut self, pin: Pin, flags: [Flag; N]) {
        self.session(flags);
        self.pins.insert(pin);
    }
}

/// Does the server refuse it inside a transaction block?
fn needs_no_transaction(node: Node<'_>) -> bool {
    match node {
        Node::VacuumStmt(statement) => statement.is_vacuumcmd,
        Node::ClusterStmt(statement) => statement.relation().is_none(),
        Node::ReindexStmt(statement) => {
            let is_one = matches!(
                statement.kind,
                ReindexObjectType::REINDEX_OBJECT_INDEX | ReindexObjectType::REINDEX_OBJECT_TABLE
            );
            !is_one || statement.params().iter().any(|option| option.defname() == Some("concurrently"))
        }
        Node::IndexStmt(statement) => statement.concurrent,
        Node::DropStmt(statement) => statement.concurrent,
        Node::AlterTableStmt(statement) => statement.cmds().iter().any(detaches_concurrently),
        Node::CreatedbStmt(_)
        | Node::DropdbStmt(_)
        | Node::CreateTableSpaceStmt(_)
        | Node::DropTableSpaceStmt(_)
        | Node::AlterSystemStmt(_)
        | Node::CreateSubscriptionStmt(_)
        | Node::DropSubscriptionStmt(_) => true,
        _ => false,
    }
}

fn detaches_concurrently(command: Node<'_>) -> bool {
    let Node::AlterTableCmd(command) = command else { return false };
    command.subtype == AlterTableType::AT_DetachPartition
        && matches!(command.def(), Node::PartitionCmd(partition) if partition.concurrent)
}

/// Is an option switched off, by one of the words or numbers for it?
fn is_off(value: Node<'_>) -> bool {
    match value {
        Node::Integer(number) => number.ival == 0,
        Node::String(word) => matches!(word.sval(), Some("false" | "off")),
        Node::Boolean(value) => !value.boolval,
        _ => matches!(constant(Some(value)), Some(ConstValue::Boolean(false) | ConstValue::Integer(0))),
    }
}
