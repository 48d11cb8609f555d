//! The page: what it says first, what it weighs, and that it fetches nothing and runs nothing but its own.

use rehearsal::profile::LONGEST_MS;
use rehearsal::record::{Event, Record, Second, Tier, TierSecond};
use rehearsal::report::{self, Document, MOST_BYTES, Part, Passed, Table, Verdict};
use sha2::{Digest, Sha256};

use crate::sample;

const LIBRARY: &str = include_str!("../../src/report/uplot/uPlot.iife.min.js");

fn part(record: Record) -> Part {
    Part { title: "Stage 3".into(), change: None, findings: vec!["It held.".into()], search: None, record }
}

fn document(parts: Vec<Part>) -> Document {
    let sentence = "Holds a front page: p99 is 190 ms at 25 visits per second.".to_owned();
    Document {
        title: "shop: rehearsal of a front page".into(),
        verdict: Verdict { passed: Passed::Yes, sentence },
        evidence: vec!["p99 < 250 ms: 190 ms.".into()],
        tables: vec![Table {
            title: "Thresholds".into(),
            head: ["threshold", "measured"].map(str::to_owned).to_vec(),
            rows: vec![vec!["p99 < 250ms".into(), "190 ms".into()]],
            note: None,
        }],
        parts,
    }
}

pub fn page_of(record: Record) -> String {
    report::html(&document(vec![part(record)]))
}

/// What is embedded for the script.
pub fn data(page: &str) -> serde_json::Value {
    let (_, rest) = page.split_once("<script type=\"application/json\" id=\"data\">").unwrap();
    serde_json::from_str(rest.split_once("</script>").unwrap().0).unwrap()
}

fn position(page: &str, text: &str) -> usize {
    page.find(text).unwrap_or_else(|| panic!("there is no `{text}`"))
}

#[test]
fn the_verdict_comes_first_then_figures_charts_and_tables() {
    let page = page_of(sample::front_page(60, 1));
    let order = [
        "Holds a front page",
        "p99 &lt; 250 ms: 190 ms.",
        "class=\"figures\"",
        "class=\"charts\"",
        "By class",
    ];
    let order = order.map(|text| position(&page, text));
    assert!(order.is_sorted(), "{order:?}");
}

/// Nobody should quote a figure of a run that does not stand.
#[test]
fn an_invalid_and_a_partial_run_say_so_before_the_verdict_which_no_longer_counts() {
    let mut record = sample::front_page(60, 1);
    record.validity.faults.push("requests were late by 9 ms".into());
    let invalid = page_of(record.clone());
    record.validity.faults.clear();
    record.cut_short = Some("interrupted".into());
    let partial = page_of(record);
    for (page, why) in [(invalid, "Invalid: requests were late by 9 ms"), (partial, "Cut short: interrupted")]
    {
        assert!(position(&page, why) < position(&page, "Holds a front page"));
        assert!(page.contains("Do not rely on these figures"));
        assert!(!page.contains(">Passed<"), "a doubted run has not passed");
    }
    let valid = page_of(sample::front_page(60, 1));
    assert!(valid.contains(">Passed<") && !valid.contains("Do not rely"));
}

#[test]
fn a_run_that_measured_nothing_is_a_page_that_says_so() {
    let page = page_of(sample::front_page(0, 1));
    assert!(position(&page, "Empty: nothing was measured") < position(&page, "Holds a front page"));
}

#[test]
fn what_a_stranger_named_neither_ends_the_script_nor_becomes_markup() {
    let evil = "</script><img src=x onerror=alert(1)>\u{2028}";
    let mut record = sample::front_page(5, 1);
    record.app = evil.into();
    record.events = vec![Event { at_ms: 1_000, text: evil.into() }];
    for second in &mut record.seconds {
        second.phase = evil.into();
        let page = second.classes.remove("page").unwrap();
        second.classes.insert(evil.into(), page);
    }
    record.tiers[0].name = evil.into();
    let plain = page_of(sample::front_page(5, 1));
    let page = page_of(record);
    assert!(!page.contains("<img"), "markup came through");
    assert_eq!(page.matches("</script").count(), plain.matches("</script").count());
    assert!(!page.contains('\u{2028}') || !data(&page).is_null());
    assert_eq!(data(&page)[0]["events"][0]["text"], evil);
}

/// It must open on a machine without a network, and never tell anyone that it was opened.
#[test]
fn nothing_is_fetched_and_the_policy_forbids_it() {
    let page = page_of(sample::front_page(30, 1));
    assert!(
        page.contains("content=\"default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline';")
    );
    let ours = page.replace(LIBRARY, "");
    for asks in
        [" src=", " href=", "url(", "@import", "fetch(", "XMLHttpRequest", "<iframe", "<link", "import("]
    {
        assert!(!ours.contains(asks), "`{asks}`");
    }
    // The record says where the app was asked, and nothing else names a host.
    let hosts = ours.match_indices("://").map(|(at, _)| &ours[at..(at + 16).min(ours.len())]);
    assert!(hosts.clone().all(|host| host.starts_with("://127.0.0.1")), "{:?}", hosts.collect::<Vec<_>>());
}

#[test]
fn ten_minutes_of_six_classes_and_twenty_series_fit_by_the_second_into_a_megabyte() {
    let record = sample::front_page(600, 1);
    let page = page_of(record);
    let data = data(&page);
    let lines: usize = data[0]["tiers"]
        .as_array()
        .unwrap()
        .iter()
        .map(|chart| chart["lines"].as_array().unwrap().len())
        .sum();
    assert!(lines >= 20, "{lines} lines of tiers");
    assert_eq!((data[0]["step"].as_u64(), data[0]["groups"].as_array().unwrap().len()), (Some(1), 7));
    assert!(page.len() <= MOST_BYTES, "{} bytes", page.len());
}

#[test]
fn a_longer_run_and_a_journey_are_drawn_coarser_rather_than_larger() {
    let long = page_of(sample::front_page(2_500, 1));
    assert!(long.len() <= MOST_BYTES, "{} bytes", long.len());
    let stages = (1..=5).map(|seed| part(sample::front_page(400, seed))).collect();
    let journey = report::html(&document(stages));
    assert!(journey.len() <= MOST_BYTES, "{} bytes", journey.len());
    for (page, parts) in [(long, 1), (journey, 5)] {
        let data = data(&page);
        assert_eq!(data.as_array().unwrap().len(), parts);
        let columns = data[0]["columns"].as_u64().unwrap();
        assert!(columns >= 150, "{columns} columns show too little");
    }
}

/// With as many marks as there may be, and names as long as a stranger may choose them.
#[test]
fn the_page_of_the_longest_rehearsal_fits_into_a_megabyte() {
    let seconds = u32::try_from(LONGEST_MS / 1_000).unwrap();
    let mut short = sample::front_page(60, 1);
    for class in short.seconds.iter_mut().flat_map(|second| second.classes.values_mut()) {
        // How many buckets there are is nothing to the page, and much to this test's memory.
        class.latency.truncate(4);
        class.service.truncate(4);
    }
    let stretched = |at: u32| {
        let second = short.seconds[at as usize % short.seconds.len()].clone();
        Second { at, phase: format!("{} {}", "p".repeat(200), at / 20), ..second }
    };
    let tiers = short.tiers.iter().map(|tier| {
        let looked_at = |at: u32| TierSecond { at, ..tier.seconds[at as usize % tier.seconds.len()].clone() };
        Tier { name: tier.name.clone(), seconds: (0..seconds).map(looked_at).collect() }
    });
    let event = |n: u64| Event { at_ms: n * 1_000, text: "e".repeat(1_000) };
    let record = Record {
        seconds: (0..seconds).map(stretched).collect(),
        tiers: tiers.collect(),
        events: (0..5_000).map(event).collect(),
        ..short.clone()
    };
    let page = page_of(record);
    assert!(page.len() <= MOST_BYTES, "{} bytes", page.len());
    let columns = data(&page)[0]["columns"].as_u64().unwrap();
    assert!(columns >= 150, "{columns} columns show too little");
}

#[test]
fn what_the_script_draws() {
    let mut record = sample::front_page(6, 3);
    record.tiers.truncate(2);
    for second in &mut record.seconds {
        second.classes.retain(|name, _| name == "page" || name == "search");
    }
    let page = report::html(&document(vec![part(record)]));
    let data = data(&page);
    let drawing = data[0].as_object().unwrap();
    let mut lines: Vec<String> = Vec::new();
    for (name, value) in drawing {
        let values = value.as_array().filter(|values| values.iter().all(|value| value.is_object()));
        match values {
            Some(values) => lines.extend(values.iter().map(|value| format!("{name}: {value}"))),
            None => lines.push(format!("{name}: {value}")),
        }
    }
    insta::assert_snapshot!(lines.join("\n"));
}

#[test]
fn the_same_is_there_for_programs() {
    let document = document(vec![part(sample::front_page(6, 3))]);
    let mut written = Vec::new();
    report::json(&document, &mut written).unwrap();
    let read: Document = serde_json::from_slice(&written).unwrap();
    assert_eq!(read, document);
}

/// Changed by nobody, so that what its authors say of it is true of ours.
#[test]
fn the_library_is_the_published_one() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/src/report/uplot");
    let readme = std::fs::read_to_string(format!("{folder}/README.md")).unwrap();
    for file in ["uPlot.iife.min.js", "uPlot.min.css", "LICENSE"] {
        let bytes = std::fs::read(format!("{folder}/{file}")).unwrap();
        let digest: String = Sha256::digest(&bytes).iter().map(|byte| format!("{byte:02x}")).collect();
        assert!(readme.contains(&format!("| `{file}` | `{digest}` |")), "{file} has the digest {digest}");
    }
}
