//! What must hold for every text that is given as a record. The fuzz target runs the same.

use rehearsal::record::json;
use rehearsal::report::{self, Document, Part, Passed, Verdict};

/// Whatever is read makes a page, however strange its figures are.
pub fn record(input: &[u8]) {
    let Ok(record) = json::read(input) else { return };
    let verdict = Verdict { passed: Passed::NotAsked, sentence: String::new() };
    let part = Part { title: String::new(), change: None, findings: Vec::new(), record };
    let document = Document {
        title: String::new(),
        verdict,
        evidence: Vec::new(),
        tables: Vec::new(),
        parts: vec![part],
    };
    assert!(report::html(&document).ends_with("</html>\n"));
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use crate::sample;

    proptest! {
        #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn a_record_with_figures_out_of_this_world_is_drawn_or_refused(
            figure in prop_oneof![any::<u64>().prop_map(|n| n.to_string()), any::<f64>().prop_map(|x| format!("{x:e}"))],
            at in any::<prop::sample::Index>(),
        ) {
            let text = rehearsal::record::json::write(&sample::front_page(4, 9));
            // One of its numbers is another.
            let numbers: Vec<_> = text.match_indices([':', ',', '[']).filter(|(at, _)| {
                text[at + 1..].starts_with(|c: char| c.is_ascii_digit())
            }).collect();
            let start = at.get(&numbers).0 + 1;
            let length = text[start..].find(|c: char| !c.is_ascii_digit() && c != '.').unwrap();
            super::record(format!("{}{figure}{}", &text[..start], &text[start + length..]).as_bytes());
        }

        #[test]
        fn a_record_that_was_cut_is_refused(at in any::<prop::sample::Index>()) {
            let text = rehearsal::record::json::write(&sample::front_page(2, 9));
            let end = at.index(text.len());
            prop_assert!(rehearsal::record::json::read(&text.as_bytes()[..end]).is_err());
        }
    }
}
