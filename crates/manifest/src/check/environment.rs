//! Environment variables that the manifest sets.

use std::collections::BTreeMap;

use toml::de::{DeTable, DeValue};

use super::shape::MAX_TEXT_BYTES;
use super::{integer, kind_of};
use crate::problems::{At, Problems};
use crate::settings::Value;

const MAX_VARIABLES: usize = 256;

/// Whether Switchback sets the variable itself.
fn reserved_variable(name: &str) -> bool {
    matches!(name, "PORT" | "DATABASE_URL") || name.starts_with("SWITCHBACK_")
}

/// As POSIX wants names; others reach no shell.
fn is_variable_name(name: &str) -> bool {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    name.len() <= 256 && name.bytes().all(plain) && name.bytes().next().is_some_and(|b| !b.is_ascii_digit())
}

pub(super) fn variables(at: &At, table: &DeTable<'_>, problems: &mut Problems) -> Option<Value> {
    if table.len() > MAX_VARIABLES {
        problems.too_many(at, table.len(), MAX_VARIABLES);
        return None;
    }
    let mut variables = BTreeMap::new();
    let mut refused = 0_usize;
    for (name, value) in table.iter() {
        let at = At { span: value.span(), ..at.clone() };
        let text = match value.get_ref() {
            DeValue::String(text) if text.len() <= MAX_TEXT_BYTES && !text.contains('\0') => {
                Some(text.to_string())
            }
            DeValue::String(_) => {
                problems.malformed(&at, "longer than 64 KiB, or with a NUL byte", None);
                None
            }
            DeValue::Integer(written) => {
                let number = integer(written);
                if number.is_none() {
                    problems.malformed(&at, "a number this large must stand in quotes", None);
                }
                number.map(|number| number.to_string())
            }
            DeValue::Boolean(flag) => Some(flag.to_string()),
            other => {
                problems.wrong_type(&at, &format!("a table with {}", kind_of(other)), None);
                None
            }
        };
        if !is_variable_name(name.get_ref()) {
            problems.bad_variable_name(name.span(), name.get_ref());
            refused += 1;
        } else if reserved_variable(name.get_ref()) {
            problems.reserved_variable(name.span(), name.get_ref());
            refused += 1;
        }
        match text {
            Some(text) => {
                variables.insert(name.get_ref().to_string(), text);
            }
            None => refused += 1,
        }
    }
    (refused == 0).then_some(Value::Environment(variables))
}
