//! Rows and their columns, as PostgreSQL sends them.

use bytes::{BufMut, BytesMut};

use crate::message::{command_complete, cstr, message};

/// How a column is read, by the OIDs of PostgreSQL's types.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Text,
    Number,
}

pub(super) type Columns = &'static [(&'static str, Kind)];

/// One value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Value {
    Null,
    Text(String),
    Number(u64),
}

pub(super) struct Table {
    columns: Columns,
    rows: Vec<Vec<Value>>,
}

impl Table {
    pub fn new(columns: Columns) -> Table {
        Table { columns, rows: Vec::new() }
    }

    pub fn row<const N: usize>(&mut self, values: [Value; N]) {
        debug_assert_eq!(N, self.columns.len());
        self.rows.push(values.into());
    }

    /// The whole answer to a query but its ReadyForQuery.
    pub fn write(&self, out: &mut BytesMut) {
        message(out, b'T', |out| {
            out.put_u16(self.columns.len() as u16);
            for (name, kind) in self.columns {
                cstr(out, name.as_bytes());
                // Of no table.
                out.put_u32(0);
                out.put_u16(0);
                let (oid, size) = match kind {
                    Kind::Text => (25, -1),
                    Kind::Number => (20, 8),
                };
                out.put_u32(oid);
                out.put_i16(size);
                out.put_i32(-1);
                // As text.
                out.put_u16(0);
            }
        });
        for row in &self.rows {
            message(out, b'D', |out| {
                out.put_u16(row.len() as u16);
                for value in row {
                    match value {
                        Value::Null => out.put_i32(-1),
                        Value::Text(text) => field(out, text),
                        Value::Number(number) => field(out, &number.to_string()),
                    }
                }
            });
        }
        command_complete(out, "SHOW");
    }
}

fn field(out: &mut BytesMut, text: &str) {
    out.put_u32(text.len() as u32);
    out.put_slice(text.as_bytes());
}

impl From<String> for Value {
    fn from(text: String) -> Value {
        Value::Text(text)
    }
}

impl From<&str> for Value {
    fn from(text: &str) -> Value {
        Value::Text(text.to_owned())
    }
}

impl From<u64> for Value {
    fn from(number: u64) -> Value {
        Value::Number(number)
    }
}

impl<T: Into<Value>> From<Option<T>> for Value {
    fn from(value: Option<T>) -> Value {
        value.map_or(Value::Null, Into::into)
    }
}
