//! What the fuzz targets and the properties need to see of the inside.

use crate::fold::folded_text;

/// A text that has the same key as `sql` and one literal of each kind, or `None` where `sql` is not folded.
pub fn with_other_literals(sql: &[u8]) -> Option<Vec<u8>> {
    let folded = folded_text(sql)?;
    let mut text = Vec::with_capacity(folded.len() * 2);
    let mut in_identifier = false;
    for byte in folded {
        text.push(byte);
        match byte {
            b'"' => in_identifier = !in_identifier,
            // The mark of a string; the prefix, if there is one, stands before it.
            b'\'' if !in_identifier => text.push(b'\''),
            _ => {}
        }
    }
    Some(text)
}
