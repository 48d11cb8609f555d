//! Statements with expressions in them: what they read, call and cast.
//!
//! PostgreSQL's own walker hands out the children of a node, so that none is forgotten. What it does not look at, because
//! names are not nodes to it, is looked at here.

use pg_raw_parse::list::NodeList;
use pg_raw_parse::raw::A_Expr_Kind;
use pg_raw_parse::walk::{Recurse, walk_manual};
use pg_raw_parse::{Node, nodes};

use super::{Findings, call};
use crate::catalog::{Name, Place};
use crate::statement::{Because, Flag, Pin};

/// Deeper trees are not followed. Every level costs stack, and a text of some kilobytes can make thousands of them.
pub(crate) const MAX_DEPTH: usize = 256;

/// A walk through one query.
struct Walk<'w, 'a, 'n> {
    findings: &'w mut Findings<'a>,
    /// Names that WITH gives here; they hide relations.
    with: Vec<&'n str>,
    depth: usize,
}

impl Findings<'_> {
    /// Looks at a query, or at an expression.
    pub(super) fn query(&mut self, node: Node<'_>) {
        if self.context.catalog.implicit() == Place::Primary {
            self.perhaps(Because::Implicit);
        }
        Walk { findings: self, with: Vec::new(), depth: 0 }.visit(node);
    }

    /// A relation that a statement makes: a temporary one is the session's alone.
    pub(super) fn created(&mut self, relation: Option<&nodes::RangeVar>) {
        let Some(relation) = relation else { return };
        let is_temporary =
            relation.relpersistence as u8 == b't' || relation_name(relation).is_some_and(Name::is_temporary);
        if is_temporary {
            self.pins.insert(Pin::TempTable);
        } else {
            self.flags.insert(Flag::Ddl);
        }
    }
}

impl<'n> Walk<'_, '_, 'n> {
    fn visit(&mut self, node: Node<'n>) {
        if self.depth > MAX_DEPTH {
            return self.findings.certainly(Because::TooDeep);
        }
        self.depth += 1;
        match node {
            Node::SelectStmt(select) => self.select(select),
            Node::InsertStmt(insert) => self.change(node, insert.with_clause()),
            Node::UpdateStmt(update) => self.change(node, update.with_clause()),
            Node::DeleteStmt(delete) => self.change(node, delete.with_clause()),
            Node::MergeStmt(merge) => self.change(node, merge.with_clause()),
            // Visited before the query it stands in.
            Node::WithClause(_) => {}
            // These have no children, or none that matter. The walker would find that out as well, at a price: it guards
            // every call against errors of the server's code.
            Node::None | Node::A_Const(_) | Node::ParamRef(_) | Node::A_Star(_) | Node::String(_) => {}
            Node::RangeVar(_) | Node::ColumnRef(_) => self.names(node),
            Node::NodeList(list) => list.iter().for_each(|child| self.visit(child)),
            _ => {
                self.names(node);
                self.children(node);
            }
        }
        self.depth -= 1;
    }

    fn children(&mut self, node: Node<'n>) {
        walk_manual::<()>(node, |child| {
            self.visit(child);
            Recurse::no()
        });
    }

    fn select(&mut self, select: &'n nodes::SelectStmt) {
        if let Some(into) = select.into_clause() {
            self.findings.certainly(Because::Kind);
            self.findings.created(into.rel());
        }
        if !select.locking_clause().is_empty() {
            self.findings.certainly(Because::Lock);
        }
        self.scope(Node::SelectStmt(select), select.with_clause());
    }

    /// INSERT, UPDATE, DELETE, MERGE, at the top or in a WITH.
    fn change(&mut self, node: Node<'n>, with: Option<&'n nodes::WithClause>) {
        self.findings.certainly(Because::Kind);
        self.scope(node, with);
    }

    fn scope(&mut self, node: Node<'n>, with: Option<&'n nodes::WithClause>) {
        let outside = self.with.len();
        if let Some(with) = with {
            self.with_clause(with);
        }
        self.children(node);
        self.with.truncate(outside);
    }

    /// `WITH v AS (SELECT * FROM v)` reads the relation `v`; with RECURSIVE it reads itself.
    fn with_clause(&mut self, with: &'n nodes::WithClause) {
        let name = |cte: &'n nodes::CommonTableExpr| cte.ctename().unwrap_or_default();
        if with.recursive {
            self.with.extend(with.ctes().iter().map(name));
        }
        for cte in with.ctes() {
            self.visit(cte.ctequery());
            if let Some(cycle) = cte.cycle_clause() {
                self.visit(cycle.cycle_mark_value());
                self.visit(cycle.cycle_mark_default());
            }
            self.with.push(name(cte));
        }
    }

    /// The names in one node.
    fn names(&mut self, node: Node<'n>) {
        match node {
            Node::RangeVar(relation) => self.relation(relation),
            Node::FuncCall(function) => self.findings.call(function),
            Node::A_Expr(expression) => self.expression(expression),
            Node::SubLink(link) => self.operator_of(link.oper_name()),
            Node::SortBy(sort) => self.operator_of(sort.use_op()),
            Node::CaseExpr(case) if !matches!(case.arg(), Node::None) => self.operator("="),
            Node::JoinExpr(join) if join.is_natural || !join.using_clause().is_empty() => self.operator("="),
            Node::TypeName(named) => self.type_named(named),
            Node::RangeTableFuncCol(column) => {
                if let Some(named) = column.type_name() {
                    self.type_named(named);
                }
            }
            Node::RangeTableSample(sample) => self.findings.function_named(call::name(sample.method())),
            Node::ColumnRef(column) if column.fields().len() > 1 => self.fields(column.fields()),
            Node::A_Indirection(indirection) => self.fields(indirection.indirection()),
            _ => {}
        }
    }

    fn relation(&mut self, relation: &nodes::RangeVar) {
        let Some(name) = relation_name(relation) else { return };
        if name.schema.is_none() && self.with.contains(&name.name) {
            return;
        }
        if name.is_temporary() {
            self.findings.flags.insert(Flag::SameBackend);
            return self.findings.certainly(Because::UnknownRelation);
        }
        let context = self.findings.context;
        match context.catalog.relation(name, context.search_path) {
            Some(Place::Anywhere) => {}
            Some(Place::Primary) => self.findings.perhaps(Because::Relation),
            None => self.findings.perhaps(Because::UnknownRelation),
        }
    }

    fn expression(&mut self, expression: &nodes::A_Expr) {
        match expression.kind {
            A_Expr_Kind::AEXPR_BETWEEN
            | A_Expr_Kind::AEXPR_NOT_BETWEEN
            | A_Expr_Kind::AEXPR_BETWEEN_SYM
            | A_Expr_Kind::AEXPR_NOT_BETWEEN_SYM => {
                for name in ["<", "<=", ">", ">="] {
                    self.operator(name);
                }
            }
            _ => self.operator_of(expression.name()),
        }
    }

    fn operator_of(&mut self, parts: &NodeList) {
        if let Some(name) = call::name(parts) {
            self.operator_named(name);
        }
    }

    fn operator(&mut self, name: &'static str) {
        self.operator_named(Name { schema: None, name });
    }

    fn operator_named(&mut self, name: Name<'_>) {
        let context = self.findings.context;
        if context.catalog.operator(name, context.search_path) != Some(Place::Anywhere) {
            self.findings.perhaps(Because::Operator);
        }
    }

    fn type_named(&mut self, named: &nodes::TypeName) {
        let Some(name) = Name::of(named.names().iter().filter_map(|part| part.sval())) else { return };
        let context = self.findings.context;
        if context.catalog.type_named(name, context.search_path) != Some(Place::Anywhere) {
            self.findings.perhaps(Because::Type);
        }
    }

    /// `row.name` calls `name(row)` where the row has no such column.
    fn fields(&mut self, fields: &NodeList) {
        let catalog = self.findings.context.catalog;
        if fields.iter().filter_map(Node::as_str).any(|field| catalog.is_call_like_a_column(field)) {
            self.findings.perhaps(Because::Function);
        }
    }
}

fn relation_name(relation: &nodes::RangeVar) -> Option<Name<'_>> {
    Some(Name { schema: relation.schemaname(), name: relation.relname()? })
}
