//! What a rehearsal requires, and the fields of a form that it sends.

use std::collections::BTreeMap;

use model::Threshold;
use toml::de::{DeTable, DeValue};

use super::shape::MAX_TEXT_BYTES;
use super::{integer, kind_of};
use crate::problems::{At, Problems};

const MAX_FIELDS: usize = 256;

pub(super) fn threshold(at: &At, text: &str, problems: &mut Problems) -> Option<String> {
    match text.parse::<Threshold>() {
        Ok(threshold) => Some(threshold.to_string()),
        Err(refused) => {
            // In a text without escapes the very place can be shown.
            let is_plain = at.span.len() == text.len() + 2 && !refused.span.is_empty();
            let span = match is_plain {
                true => at.span.start + 1 + refused.span.start..at.span.start + 1 + refused.span.end,
                false => at.span.clone(),
            };
            let meant = refused.meant.map(|meant| format!("{} = \"{meant}\"", at.card.key));
            problems.malformed(&At { span, ..at.clone() }, &refused.why, meant);
            None
        }
    }
}

pub(super) fn fields(
    at: &At,
    table: &DeTable<'_>,
    problems: &mut Problems,
) -> Option<BTreeMap<String, String>> {
    if table.len() > MAX_FIELDS {
        problems.too_many(at, table.len(), MAX_FIELDS);
        return None;
    }
    let mut fields = Some(BTreeMap::new());
    for (name, value) in table.iter() {
        let at = At { span: value.span(), ..at.clone() };
        let text = match value.get_ref() {
            DeValue::String(text) if text.len() <= MAX_TEXT_BYTES => Some(text.to_string()),
            DeValue::String(_) => {
                problems.malformed(&at, "longer than 64 KiB", None);
                None
            }
            DeValue::Integer(written) if integer(written).is_some() => {
                integer(written).map(|n| n.to_string())
            }
            DeValue::Boolean(flag) => Some(flag.to_string()),
            other => {
                problems.wrong_type(&at, &format!("a table with {}", kind_of(other)), None);
                None
            }
        };
        fields = fields.zip(text).map(|(mut fields, text)| {
            fields.insert(name.get_ref().to_string(), text);
            fields
        });
    }
    fields
}
