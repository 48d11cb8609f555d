//! From rows to a [`Catalog`]: what reaches a function that needs the primary needs it too.

use std::collections::{HashMap, HashSet};

use super::known::{self, Described};
use super::queries::Query;
use super::{Catalog, Function, Place};

/// Takes the rows of each [`Query`] and makes a catalog of them.
#[derive(Default)]
pub struct Builder {
    functions: Vec<FunctionRow>,
    relations: Vec<NamedRow>,
    operators: Vec<NamedRow>,
    types: Vec<NamedRow>,
    /// From what is run to all that can run it.
    run_by: HashMap<Node, Vec<Node>>,
    /// Relations that need the primary by themselves.
    sources: Vec<Node>,
}

struct FunctionRow {
    row: NamedRow,
    own: Function,
    shape: Shape,
}

struct NamedRow {
    oid: Oid,
    schema: Box<str>,
    name: Box<str>,
}

/// May `column.name` be a call?
#[derive(Clone, Copy, PartialEq, Eq)]
enum Shape {
    OfOneRow,
    Other,
}

type Oid = u32;

/// Something that can be run, or can run something.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Node {
    Function(Oid),
    Relation(Oid),
    Operator(Oid),
    Type(Oid),
    /// What runs where no text shows it.
    Implicit,
    /// Taking locks on rows.
    Lock,
}

/// A row that is not what its query gives.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum RowError {
    #[error("a row of {query:?} has {found} columns, not {}", query.columns())]
    Columns { query: Query, found: usize },
    #[error("`{text}` in a row of {query:?} is not what stands there")]
    Value { query: Query, text: String },
}

impl Builder {
    /// Takes one row.
    ///
    /// # Errors
    /// When it is not a row of `query`.
    pub fn row(&mut self, query: Query, columns: &[&str]) -> Result<(), RowError> {
        let wrong = |text: &str| RowError::Value { query, text: text.to_owned() };
        let oid = |text: &str| text.parse::<Oid>().map_err(|_| wrong(text));
        let named = |number: &str, schema: &str, name: &str| {
            Ok(NamedRow { oid: oid(number)?, schema: schema.into(), name: name.into() })
        };
        match (query, columns) {
            (Query::Functions, [number, schema, name, volatility, extension, of_one_row]) => {
                let declared = if *volatility == "v" { Place::Primary } else { Place::Anywhere };
                let own = known::judge(Described { schema, name, extension, declared });
                let shape = if *of_one_row == "true" { Shape::OfOneRow } else { Shape::Other };
                self.functions.push(FunctionRow { row: named(number, schema, name)?, own, shape });
            }
            (Query::Relations, [number, schema, name, kind]) => {
                let row = named(number, schema, name)?;
                // A sequence is logged ahead, a foreign table is wherever it is, and what is unlogged is on no standby.
                if matches!(*kind, "S" | "f" | "u") {
                    self.sources.push(Node::Relation(row.oid));
                }
                self.relations.push(row);
            }
            (Query::Operators, [number, schema, name]) => self.operators.push(named(number, schema, name)?),
            (Query::Types, [number, schema, name]) => self.types.push(named(number, schema, name)?),
            (Query::References, [kind, number, run_kind, run_number]) => {
                let node = |kind, number| Node::new(kind, oid(number)?).ok_or_else(|| wrong(kind));
                let (from, run) = (node(kind, number)?, node(run_kind, run_number)?);
                self.run_by.entry(run).or_default().push(from);
            }
            _ => return Err(RowError::Columns { query, found: columns.len() }),
        }
        Ok(())
    }

    /// The catalog of all rows taken. `epoch` is not 0, and another one than that of any catalog whose verdicts are remembered.
    pub fn finish(self, epoch: u64) -> Catalog {
        let tainted = self.tainted();
        let place = |node| if tainted.contains(&node) { Place::Primary } else { Place::Anywhere };
        let mut catalog = Catalog { epoch, implicit: place(Node::Implicit), ..Catalog::empty() };
        for FunctionRow { row, own, shape } in &self.functions {
            let place = place(Node::Function(row.oid));
            catalog.functions.add(&row.schema, &row.name, Function { place, ..*own });
            if *shape == Shape::OfOneRow && place == Place::Primary {
                catalog.like_columns.insert(row.name.clone());
            }
        }
        for row in &self.relations {
            catalog.relations.add(&row.schema, &row.name, place(Node::Relation(row.oid)));
        }
        for row in &self.operators {
            catalog.operators.add(&row.schema, &row.name, place(Node::Operator(row.oid)));
        }
        for row in &self.types {
            catalog.types.add(&row.schema, &row.name, place(Node::Type(row.oid)));
        }
        catalog
    }

    /// Everything that can run what needs the primary, however far away.
    fn tainted(&self) -> HashSet<Node> {
        let functions = self.functions.iter().filter(|function| function.own.place == Place::Primary);
        let mut left: Vec<Node> = functions.map(|function| Node::Function(function.row.oid)).collect();
        left.extend(&self.sources);
        left.push(Node::Lock);
        let mut tainted = HashSet::new();
        while let Some(node) = left.pop() {
            if tainted.insert(node) {
                left.extend(self.run_by.get(&node).into_iter().flatten());
            }
        }
        tainted
    }
}

impl Node {
    fn new(kind: &str, oid: Oid) -> Option<Node> {
        Some(match kind {
            "f" => Node::Function(oid),
            "r" => Node::Relation(oid),
            "o" => Node::Operator(oid),
            "t" => Node::Type(oid),
            "i" => Node::Implicit,
            "w" => Node::Lock,
            _ => return None,
        })
    }
}
