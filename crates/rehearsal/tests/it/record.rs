//! Records as they are kept.

use proptest::prelude::*;
use rehearsal::profile::LONGEST_MS;
use rehearsal::record::json::{self, ReadError};
use serde_json::Value;

use crate::{properties, sample};

fn changed(change: impl FnOnce(&mut Value)) -> ReadError {
    let mut value = serde_json::from_str(&json::write(&sample::front_page(3, 1))).unwrap();
    change(&mut value);
    json::read(value.to_string().as_bytes()).unwrap_err()
}

#[test]
fn what_was_written_is_read() {
    let record = sample::front_page(30, 1);
    assert_eq!(json::read(json::write(&record).as_bytes()).unwrap(), record);
}

/// What is measured for hours and then refused was measured for nothing.
#[test]
fn the_longest_rehearsal_can_be_read_again() {
    const SECONDS: u32 = 300;
    let each = json::write(&sample::front_page(SECONDS, 1)).len() as f64 / f64::from(SECONDS);
    // Twenty times as many visitors as these make each second three to four times as long.
    let longest = each * 4.0 * LONGEST_MS as f64 / 1e3;
    assert!(longest < json::MOST_BYTES as f64, "{each} bytes a second, {longest} in all");
}

/// A later version may have dropped what we would rely on, so the version is looked at before anything else is.
#[test]
fn a_record_of_another_version_is_refused_by_its_version_whatever_else_it_has() {
    let error = json::read(br#"{"version": 2, "strange": true}"#).unwrap_err();
    assert!(matches!(error, ReadError::OtherVersion { found: 2 }), "{error:?}");
    assert!(error.to_string().contains("form 2") && error.to_string().contains("form 1"), "{error}");
}

#[test]
fn what_is_no_record_is_refused_with_what_to_do() {
    for text in ["", "[]", "{}", r#"{"version": 1}"#, r#"{"version": "1"}"#] {
        let error = json::read(text.as_bytes()).unwrap_err();
        assert!(matches!(error, ReadError::NoRecord(_)), "{text}: {error:?}");
        assert!(error.to_string().contains("switchback rehearse"), "{error}");
    }
}

#[test]
fn a_record_that_contradicts_itself_is_refused() {
    let gap = changed(|record| record["seconds"][1]["at"] = 7.into());
    assert!(gap.to_string().ends_with("second 7 stands where 1 belongs"), "{gap}");
    let more_ends = changed(|record| record["seconds"][2]["classes"]["page"]["outcomes"]["ok"] = 900.into());
    assert!(more_ends.to_string().contains("requests of page ended"), "{more_ends}");
    let backwards = changed(|record| record["tiers"][1]["seconds"][2]["at"] = 0.into());
    assert!(backwards.to_string().contains("of tier web does not follow"), "{backwards}");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_record_with_figures_out_of_this_world_is_drawn_or_refused(
        figure in prop_oneof![any::<u64>().prop_map(|n| n.to_string()), any::<f64>().prop_map(|x| format!("{x:e}"))],
        at in any::<prop::sample::Index>(),
    ) {
        let text = json::write(&sample::front_page(4, 9));
        // One of its numbers is another.
        let begins = |at: usize| text[at + 1..].starts_with(|c: char| c.is_ascii_digit());
        let numbers: Vec<_> = text.match_indices([':', ',', '[']).filter(|(at, _)| begins(*at)).collect();
        let start = at.get(&numbers).0 + 1;
        let length = text[start..].find(|c: char| !c.is_ascii_digit() && c != '.').unwrap();
        properties::record(format!("{}{figure}{}", &text[..start], &text[start + length..]).as_bytes());
    }

    #[test]
    fn a_record_that_was_cut_is_refused(at in any::<prop::sample::Index>()) {
        let text = json::write(&sample::front_page(2, 9));
        let end = at.index(text.len());
        prop_assert!(json::read(&text.as_bytes()[..end]).is_err());
    }
}
