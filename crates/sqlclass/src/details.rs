//! The names and values in statements about the session: what a proxy keeps to make another connection like it.
//!
//! They are not part of a [`Statement`](crate::Statement), which is the same for all texts that differ in their literals.

use pg_raw_parse::raw::{DiscardMode, VariableSetKind};
use pg_raw_parse::walk::{Recurse, walk_manual};
use pg_raw_parse::{ConstValue, Node, nodes};

use crate::catalog::Name;
use crate::judge::{MAX_DEPTH, constant};

/// Something that a statement does to its session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Detail {
    Setting(Setting),
    /// RESET ALL.
    ResetAll,
    /// A setting whose name an expression gives.
    UnknownSetting,
    Prepare {
        name: String,
    },
    Execute {
        name: String,
    },
    Deallocate {
        name: String,
    },
    DeallocateAll,
    Listen {
        channel: String,
    },
    Unlisten {
        channel: String,
    },
    UnlistenAll,
    Notify {
        channel: String,
    },
    Discard(Discard),
}

/// SET, RESET, or a call of `set_config`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Setting {
    /// In lower case. SET ROLE is `role`, SET NAMES is `client_encoding`, as PostgreSQL has it.
    pub name: String,
    pub change: Change,
    pub lasts: Lasts,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// To these, of which there are several for a list such as `search_path`.
    To(Vec<String>),
    /// To what it is for a new connection.
    Default,
    /// To what an expression gives.
    Unknown,
}

/// How long a setting holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lasts {
    Session,
    Transaction,
}

/// What DISCARD takes back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Discard {
    All,
    Plans,
    Sequences,
    Temporary,
}

/// What `sql` does to its session, in its order; nothing where the grammar does not know it. Worth asking where
/// [`Flag::Details`](crate::Flag::Details) is set.
pub fn details(sql: &str) -> Vec<Detail> {
    let Ok(tree) = pg_raw_parse::parse(sql) else { return Vec::new() };
    tree.stmts().flat_map(of_statement).collect()
}

fn of_statement(node: Node<'_>) -> Vec<Detail> {
    let named = |name: Option<&str>| name.unwrap_or_default().to_owned();
    let detail = match node {
        Node::VariableSetStmt(set) => return of_set(set),
        Node::SelectStmt(_) => return of_query(node),
        Node::PrepareStmt(prepare) => Detail::Prepare { name: named(prepare.name()) },
        Node::ExecuteStmt(execute) => Detail::Execute { name: named(execute.name()) },
        Node::DeallocateStmt(deallocate) => match deallocate.name() {
            Some(name) => Detail::Deallocate { name: name.to_owned() },
            None => Detail::DeallocateAll,
        },
        Node::ListenStmt(listen) => Detail::Listen { channel: named(listen.conditionname()) },
        Node::UnlistenStmt(unlisten) => match unlisten.conditionname() {
            Some(channel) => Detail::Unlisten { channel: channel.to_owned() },
            None => Detail::UnlistenAll,
        },
        Node::NotifyStmt(notify) => Detail::Notify { channel: named(notify.conditionname()) },
        Node::DiscardStmt(discard) => Detail::Discard(match discard.target {
            DiscardMode::DISCARD_PLANS => Discard::Plans,
            DiscardMode::DISCARD_SEQUENCES => Discard::Sequences,
            DiscardMode::DISCARD_TEMP => Discard::Temporary,
            _ => Discard::All,
        }),
        _ => return Vec::new(),
    };
    vec![detail]
}

fn of_set(set: &nodes::VariableSetStmt) -> Vec<Detail> {
    let name = set.name().unwrap_or_default();
    let lasts = if set.is_local { Lasts::Transaction } else { Lasts::Session };
    let change = match set.kind {
        VariableSetKind::VAR_RESET_ALL => return vec![Detail::ResetAll],
        VariableSetKind::VAR_SET_MULTI if name == "SESSION CHARACTERISTICS" => return characteristics(set),
        // The modes of this transaction are no settings of the session.
        VariableSetKind::VAR_SET_MULTI => return Vec::new(),
        VariableSetKind::VAR_SET_VALUE => {
            let values: Option<Vec<String>> = set.args().iter().map(|value| text(Some(value))).collect();
            values.map_or(Change::Unknown, Change::To)
        }
        VariableSetKind::VAR_SET_CURRENT => Change::Unknown,
        _ => Change::Default,
    };
    vec![Detail::Setting(Setting { name: name.to_ascii_lowercase(), change, lasts })]
}

/// SET SESSION CHARACTERISTICS sets the defaults of the modes that it names.
fn characteristics(set: &nodes::VariableSetStmt) -> Vec<Detail> {
    let options = set.args().iter().filter_map(|option| match option {
        Node::DefElem(option) => Some(option),
        _ => None,
    });
    let setting = |option: &nodes::DefElem| {
        let value = match constant(Some(option.arg()))? {
            ConstValue::Integer(0) => "off".to_owned(),
            ConstValue::Integer(_) => "on".to_owned(),
            ConstValue::String(level) => level.to_owned(),
            _ => return None,
        };
        let name = format!("default_{}", option.defname()?);
        Some(Detail::Setting(Setting { name, change: Change::To(vec![value]), lasts: Lasts::Session }))
    };
    options.filter_map(setting).collect()
}

/// Every `set_config` in a query, wherever it stands.
fn of_query(node: Node<'_>) -> Vec<Detail> {
    let mut details = Vec::new();
    gather(node, 0, &mut details);
    details
}

fn gather(node: Node<'_>, depth: usize, details: &mut Vec<Detail>) {
    if depth > MAX_DEPTH {
        return details.push(Detail::UnknownSetting);
    }
    if let Node::FuncCall(call) = node {
        let name = Name::of(call.funcname().iter().filter_map(Node::as_str));
        if name.is_some_and(|name| name.is_built_in("set_config")) {
            details.push(of_set_config(call));
        }
    }
    walk_manual::<()>(node, |child| {
        gather(child, depth + 1, details);
        Recurse::no()
    });
}

fn of_set_config(call: &nodes::FuncCall) -> Detail {
    let argument = |at| text(call.args().get(at));
    let Some(name) = argument(0) else { return Detail::UnknownSetting };
    let change = argument(1).map_or(Change::Unknown, |value| Change::To(vec![value]));
    let lasts = match constant(call.args().get(2)) {
        Some(ConstValue::Boolean(true)) => Lasts::Transaction,
        _ => Lasts::Session,
    };
    Detail::Setting(Setting { name: name.to_ascii_lowercase(), change, lasts })
}

/// A constant as SET writes it.
fn text(node: Option<Node<'_>>) -> Option<String> {
    Some(match constant(node)? {
        ConstValue::Integer(number) => number.to_string(),
        ConstValue::Float(text) | ConstValue::String(text) => text.to_owned(),
        ConstValue::Boolean(true) => "on".to_owned(),
        ConstValue::Boolean(false) => "off".to_owned(),
        _ => return None,
    })
}
