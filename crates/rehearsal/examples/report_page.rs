//! Writes the report of a made-up record, to be looked at and to be measured by `cargo xtask bench report`.
//!
//! `cargo run -p rehearsal --example report_page -- FILE [--journey] [--invalid]`

#[path = "../tests/it/sample.rs"]
mod sample;

use std::process::ExitCode;

use rehearsal::report::journey::{self, Leg};
use rehearsal::report::{self, Document, Part, Passed, Table, Verdict};

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let has = |flag: &str| arguments.iter().any(|argument| argument == flag);
    let Some(path) = arguments.iter().find(|argument| !argument.starts_with("--")) else {
        eprintln!("error: name the file to write");
        return ExitCode::from(2);
    };
    let mut document = if has("--journey") { of_a_journey() } else { of_a_rehearsal() };
    if has("--invalid") {
        let record = &mut document.parts[0].record;
        record.validity.faults.push("requests were sent late: p99 of 41 ms, more than 5 ms".into());
        record.cut_short = Some("interrupted after 9:30 of 12:00".into());
    }
    match std::fs::write(path, report::html(&document)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {path}: {error}");
            ExitCode::FAILURE
        }
    }
}

fn of_a_rehearsal() -> Document {
    let row = |words: [&str; 4]| words.map(str::to_owned).to_vec();
    Document {
        title: "shop: rehearsal of a front page".into(),
        verdict: Verdict {
            passed: Passed::No,
            sentence:
                "Does not hold a front page: at 37 visits per second the web tier ran out of processor time."
                    .into(),
        },
        evidence: vec![
            "web used 97 % of its two cores in the burst, and 14 requests waited in front of it.".into(),
            "The database used 68 % of what it may; neither replica lagged by more than 60 ms.".into(),
            "Two more web instances are predicted to carry 1.9 times as much.".into(),
        ],
        tables: vec![Table {
            title: "What was asked".into(),
            head: row(["threshold", "measured", "", "phase"]),
            rows: vec![
                row(["p99 < 250 ms", "312 ms", "missed", "burst"]),
                row(["errors < 0.1 %", "0.08 %", "kept", "all"]),
                row(["shed < 1 %", "0.4 %", "kept", "all"]),
            ],
            note: None,
        }],
        parts: vec![Part {
            title: "Front page".into(),
            change: None,
            findings: Vec::new(),
            search: None,
            record: sample::front_page(600, 1),
        }],
    }
}

struct Stage {
    name: &'static str,
    shape: &'static str,
    capacity: f64,
    gave_way: &'static str,
    predicted_gain: Option<f64>,
    change: Option<&'static str>,
}

const STAGES: [Stage; 3] = [
    Stage {
        name: "1, one server",
        shape: "1 web, 1 primary",
        capacity: 118.0,
        gave_way: "web: processor",
        predicted_gain: None,
        change: None,
    },
    Stage {
        name: "2, two zones",
        shape: "2 web, 1 primary, 1 standby",
        capacity: 219.0,
        gave_way: "web: processor",
        predicted_gain: Some(1.9),
        change: Some("a second zone, with an instance of web and a standby"),
    },
    Stage {
        name: "3, read replicas",
        shape: "4 web, 1 primary, 1 standby, 2 replicas",
        capacity: 402.0,
        gave_way: "primary: processor",
        predicted_gain: Some(1.8),
        change: Some("two read replicas, and two more instances of web"),
    },
];

fn of_a_journey() -> Document {
    let leg = |stage: &Stage| Leg {
        stage: stage.name.into(),
        shape: stage.shape.into(),
        capacity: Some(stage.capacity),
        is_at_least: false,
        p99_us: Some(230_000),
        gave_way: Some(stage.gave_way.into()),
        predicted_gain: stage.predicted_gain,
        failed: 0,
        cost: None,
    };
    let part = |(stage, seed): (&Stage, u64)| Part {
        title: format!("Stage {}", stage.name),
        change: stage.change.map(str::to_owned),
        findings: vec![format!("What gave way: {}.", stage.gave_way)],
        search: None,
        record: sample::front_page(240, seed),
    };
    let sentence =
        "From one server to read replicas it carries 3.4 times as much, and no request failed on the way.";
    Document {
        title: "shop: the journey".into(),
        verdict: Verdict { passed: Passed::Yes, sentence: sentence.into() },
        evidence: vec!["Each step was taken under load, by one line of the manifest.".into()],
        tables: vec![journey::table(&STAGES.iter().map(leg).collect::<Vec<_>>())],
        parts: STAGES.iter().zip(1..).map(part).collect(),
    }
}
