//! A journey of examples/frontpage through all stages, by the real command: how long it takes, what each stage serves, what
//! each move was said to gain and what it gained, and how long after a stage's last step its diagnosis is said.
//!
//! A diagnosis is said when the next stage is taken because of it, and the last with the verdict. So the lines that the command
//! says are read as they come.

use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::figures::Figures;
use super::machine;
use super::page;
use super::quiet::{self, Busy};
use super::up;
use crate::demo;
use crate::failure::{Failure, Result};
use crate::flags::Flags;
use crate::house;
use crate::setup;

const DEFAULT_ROUNDS: usize = 1;
/// From the last step of a stage to its diagnosis.
const MOST_SECONDS: f64 = 90.0;

/// How closely it looks, and how long it may take by that.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Effort {
    Full,
    Quick,
}

impl Effort {
    fn arguments(self) -> &'static [&'static str] {
        match self {
            Effort::Full => &["journey"],
            Effort::Quick => &["journey", "--quick"],
        }
    }

    fn most_seconds(self) -> f64 {
        match self {
            Effort::Full => 600.0,
            Effort::Quick => 180.0,
        }
    }
}

/// # Errors
/// When a journey ends early, a request failed on it, it is no proof, or the machine is busy.
pub fn run(mut flags: Flags) -> Result {
    let rounds = flags.option("--rounds")?.unwrap_or(DEFAULT_ROUNDS).max(1);
    let effort = if flags.switch("--quick") { Effort::Quick } else { Effort::Full };
    let busy = if flags.switch("--anyway") { Busy::Measure } else { Busy::Refuse };
    let consent = setup::Consent::from_flags(&mut flags);
    flags.end()?;
    up::prepare(consent)?;
    let watch = quiet::must_be_quiet(busy)?;
    let folder = house::target().join("bench-journey");
    // What a run before has left.
    let _ = std::fs::remove_dir_all(&folder);
    std::fs::create_dir_all(&folder).map_err(Failure::while_doing(folder.display()))?;
    let mut all = Vec::new();
    for round in 1..=rounds {
        let journey = Journey::make(effort, &folder, round)?;
        eprintln!("    round {round}: {:.1} s. {}", journey.took, journey.sentence);
        eprintln!("    its report: {}", journey.page.display());
        all.push(journey);
    }
    let quick = if effort == Effort::Quick { " --quick" } else { "" };
    let command = format!("cargo xtask bench journey{quick} --rounds {rounds}");
    let report = Report { effort, all, busy: watch.end(), command };
    print!("{}", report.markdown());
    page::publish("journey", &report.markdown(), &report.json())?;
    match report.all.iter().find(|journey| !journey.passed) {
        None => Ok(()),
        Some(journey) => Err(Failure::new(journey.sentence.clone())),
    }
}

/// What one said.
#[derive(Debug, Clone, PartialEq)]
struct Journey {
    /// In seconds, with all of it.
    took: f64,
    passed: bool,
    sentence: String,
    stages: Vec<Stage>,
    /// For each stage that was searched, in seconds.
    until_diagnosed: Vec<f64>,
    page: PathBuf,
}

#[derive(Debug, Clone, PartialEq)]
struct Stage {
    number: u64,
    shape: String,
    requests_per_second: Option<f64>,
    is_at_least: bool,
    gave_way: Option<String>,
    /// Whether the diagnosis of the stage before asked for it. `None`: of the first there is none before.
    recommended: Option<bool>,
    gain_predicted: Option<f64>,
    gain_measured: Option<f64>,
    failed: u64,
}

impl Journey {
    fn make(effort: Effort, folder: &Path, round: usize) -> Result<Journey> {
        let report = folder.join(format!("round-{round}"));
        let mut command = Command::new(demo::program());
        command.env_remove("CARGO_TARGET_DIR").stdin(Stdio::null());
        command
            .arg("-C")
            .arg(house::frontpage())
            .arg("--state-dir")
            .arg(folder.join(format!("state-{round}")));
        command.args(effort.arguments()).args(["--yes", "--json", "--out"]).arg(&report);
        let began = Instant::now();
        let mut child = command
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(Failure::while_doing("switchback journey"))?;
        let heard = hear(&mut child, began);
        child.wait().map_err(Failure::while_doing("switchback journey"))?;
        let (lines, told, at) = heard?;
        let took = began.elapsed().as_secs_f64();
        let told: Value = serde_json::from_str(&told).map_err(|_| {
            let last = lines.last().map_or("nothing", |(_, line)| line.as_str());
            Failure::new(format!("the journey told nothing; it said last: {last}"))
        })?;
        let until_diagnosed = until_diagnosed(&lines, at).iter().map(Duration::as_secs_f64).collect();
        Journey::parse(&told, took, until_diagnosed)
    }

    fn parse(told: &Value, took: f64, until_diagnosed: Vec<f64>) -> Result<Journey> {
        let text = |value: &Value| value.as_str().map(str::to_owned);
        let incomplete = || Failure::new(format!("this is no journey: {told}"));
        let stage = |stage: &Value| {
            Some(Stage {
                number: stage["stage"].as_u64()?,
                shape: text(&stage["shape"])?,
                requests_per_second: stage["requests_per_second"].as_f64(),
                is_at_least: stage["is_at_least"].as_bool()?,
                gave_way: text(&stage["gave_way"]),
                recommended: stage["taken_because"].as_str().map(|why| !why.contains("does not ask for it")),
                gain_predicted: stage["gain_predicted"].as_f64(),
                gain_measured: stage["gain_measured"].as_f64(),
                failed: stage["failed"].as_u64()?,
            })
        };
        let stages: Option<Vec<Stage>> = told["stages"].as_array().into_iter().flatten().map(stage).collect();
        Ok(Journey {
            took,
            passed: told["verdict"]["passed"] == "yes",
            sentence: text(&told["verdict"]["sentence"]).ok_or_else(incomplete)?,
            stages: stages.ok_or_else(incomplete)?,
            until_diagnosed,
            page: told["page"].as_str().ok_or_else(incomplete)?.into(),
        })
    }

    fn failed(&self) -> u64 {
        self.stages.iter().map(|stage| stage.failed).sum()
    }
}

type Lines = Vec<(Duration, String)>;

/// What it says, line by line as they come, and what it tells in the end and when that begins.
fn hear(child: &mut Child, began: Instant) -> Result<(Lines, String, Duration)> {
    let (Some(stdout), Some(stderr)) = (child.stdout.take(), child.stderr.take()) else {
        return Err(Failure::new("the journey has no output"));
    };
    let telling = std::thread::spawn(move || {
        let mut stdout = BufReader::new(stdout);
        let mut told = String::new();
        // The first line alone, to know when it came.
        let read = stdout.read_line(&mut told);
        let at = began.elapsed();
        read.and_then(|_| stdout.read_to_string(&mut told)).map(|_| (told, at))
    });
    let mut lines = Vec::new();
    for line in BufReader::new(stderr).lines() {
        let line = line.map_err(Failure::while_doing("what the journey says"))?;
        eprintln!("    {line}");
        lines.push((began.elapsed(), line));
    }
    let told = telling.join().map_err(|_| Failure::new("nobody heard what the journey told"))?;
    let (told, at) = told.map_err(Failure::while_doing("what the journey told"))?;
    Ok((lines, told, at))
}

/// From the last step of each stage until its diagnosis is said: as the reason for the next, or, at `told`, with the verdict.
fn until_diagnosed(lines: &[(Duration, String)], told: Duration) -> Vec<Duration> {
    let (mut found, mut last_step) = (Vec::new(), None);
    for (at, line) in lines {
        if line.starts_with("kept: ") || line.starts_with("not kept: ") {
            last_step = Some(*at);
        } else if line.starts_with("taken because ") {
            found.extend(last_step.take().map(|step| at.saturating_sub(step)));
        }
    }
    found.extend(last_step.map(|step| told.saturating_sub(step)));
    found
}

struct Report {
    effort: Effort,
    all: Vec<Journey>,
    busy: Option<String>,
    command: String,
}

impl Report {
    fn took(&self) -> Figures {
        figures(self.all.iter().map(|journey| journey.took))
    }

    fn until_diagnosed(&self) -> Figures {
        figures(self.all.iter().flat_map(|journey| journey.until_diagnosed.iter().copied()))
    }

    fn failed(&self) -> u64 {
        self.all.iter().map(Journey::failed).sum()
    }

    /// The same stage of each journey that came so far, for each that any came to.
    fn stages(&self) -> Vec<Vec<&Stage>> {
        let most = self.all.iter().map(|journey| journey.stages.len()).max().unwrap_or(0);
        (0..most).map(|at| self.all.iter().filter_map(|journey| journey.stages.get(at)).collect()).collect()
    }

    fn markdown(&self) -> String {
        let mut page = format!(
            "# A journey through the stages\n\n\
             Measured on {} by `{}`.\n\n\
             - Machine: {}\n\
             - examples/frontpage, by `switchback {}`, {}; built before\n\
             - Each instance and each database node has an eighth of the machine, and shares it with the load's generator\n\
             - Each figure: median of the rounds (smallest–largest)\n",
            machine::today(),
            self.command,
            machine::words(),
            self.effort.arguments().join(" "),
            match self.all.len() {
                1 => "once".to_owned(),
                rounds => format!("{rounds} times"),
            },
        );
        if let Some(busy) = &self.busy {
            page.push_str(&format!(
                "\n**The machine was busy with something else ({busy}). These figures are for orientation only.**\n"
            ));
        }
        page.push_str(&format!(
            "\n| | measured | wished |\n|---|---|---|\n\
             | all of it, s | {} | at most {} |\n\
             | from the last step of a stage to its diagnosis, s | {} | at most {MOST_SECONDS} |\n\
             | requests that failed, all rounds | {} | 0 |\n",
            self.took().text(1),
            self.effort.most_seconds(),
            self.until_diagnosed().text(2),
            self.failed(),
        ));
        page.push_str(
            "\n## Stage by stage\n\n\
             | stage | requests/s within the objective | what gave way | recommended | gain, predicted | gain, measured |\n\
             |---|---|---|---|---|---|\n",
        );
        for stages in self.stages() {
            page.push_str(&row(&stages));
        }
        page.push_str(
            "\nRecommended: whether the diagnosis of the stage before asked for it. A gain is how many times as much as at the stage \
             before.\n\n",
        );
        for (round, journey) in (1..).zip(&self.all) {
            page.push_str(&format!("- Round {round}: {}\n", journey.sentence));
        }
        page
    }

    fn json(&self) -> Value {
        let stages = self.stages();
        let stages = stages.iter().filter_map(|stages| {
            let first = stages.first()?;
            Some(json!({
                "stage": first.number,
                "shape": first.shape,
                "requests_per_second": capacities(stages).json(),
                "is_at_least": stages.iter().any(|stage| stage.is_at_least),
                "gave_way": stages.iter().map(|stage| &stage.gave_way).collect::<Vec<_>>(),
                "recommended": stages.iter().map(|stage| stage.recommended).collect::<Vec<_>>(),
                "gain_predicted": predicted(stages).json(),
                "gain_measured": measured(stages).json(),
                "failed": stages.iter().map(|stage| stage.failed).sum::<u64>(),
            }))
        });
        json!({
            "date": machine::today(),
            "command": self.command,
            "machine": machine::description(),
            "busy": self.busy,
            "took_s": self.took().json(),
            "until_diagnosed_s": self.until_diagnosed().json(),
            "failed": self.failed(),
            "stages": stages.collect::<Vec<Value>>(),
            "said": self.all.iter().map(|journey| &journey.sentence).collect::<Vec<_>>(),
        })
    }
}

fn row(stages: &[&Stage]) -> String {
    let Some(first) = stages.first() else { return String::new() };
    let at_least = if stages.iter().any(|stage| stage.is_at_least) { "at least " } else { "" };
    let gave_way = stages.iter().map(|stage| stage.gave_way.as_deref().unwrap_or("nothing"));
    let recommended = stages.iter().map(|stage| match stage.recommended {
        None => "-",
        Some(true) => "yes",
        Some(false) => "no",
    });
    format!(
        "| {} | {at_least}{} | {} | {} | {} | {} |\n",
        first.shape,
        capacities(stages).text(0),
        each_once(gave_way),
        each_once(recommended),
        predicted(stages).text(2),
        measured(stages).text(2),
    )
}

fn capacities(stages: &[&Stage]) -> Figures {
    figures(stages.iter().filter_map(|stage| stage.requests_per_second))
}

fn predicted(stages: &[&Stage]) -> Figures {
    figures(stages.iter().filter_map(|stage| stage.gain_predicted))
}

fn measured(stages: &[&Stage]) -> Figures {
    figures(stages.iter().filter_map(|stage| stage.gain_measured))
}

fn figures(all: impl Iterator<Item = f64>) -> Figures {
    let mut figures = Figures::default();
    all.for_each(|figure| figures.add(figure));
    figures
}

/// What was not the same in all rounds, side by side.
fn each_once<'a>(words: impl Iterator<Item = &'a str>) -> String {
    let mut once: Vec<&str> = Vec::new();
    for word in words {
        if !once.contains(&word) {
            once.push(word);
        }
    }
    once.join("; ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(failed: u64) -> Value {
        json!({
            "verdict": { "passed": if failed == 0 { "yes" } else { "no" }, "sentence": "The app serves 40 and 75." },
            "page": "/target/bench-journey/round-1.html",
            "stages": [
                {
                    "stage": 1, "shape": "stage 1, 1 web, 1 primary", "requests_per_second": 40.0, "is_at_least": false,
                    "gave_way": "the app's processors", "taken_because": null, "gain_predicted": null,
                    "gain_measured": null, "failed": 0,
                },
                {
                    "stage": 2, "shape": "stage 2, 2 web, 1 primary", "requests_per_second": 75.0, "is_at_least": true,
                    "gave_way": null, "taken_because": "the diagnosis at stage 1 asks for it", "gain_predicted": 2.0,
                    "gain_measured": 1.875, "failed": failed,
                },
            ],
        })
    }

    fn report(failed: u64) -> Report {
        let journey = |took| Journey::parse(&told(failed), took, vec![0.4, 0.6]).unwrap();
        let command = "cargo xtask bench journey --quick --rounds 2".to_owned();
        Report { effort: Effort::Quick, all: vec![journey(150.0), journey(160.0)], busy: None, command }
    }

    #[test]
    fn a_diagnosis_is_said_as_the_reason_for_the_next_stage_and_at_last_with_the_verdict() {
        let said = [
            (10, "stage: stage 1, 1 web, 1 primary"),
            (20, "kept: 40 of 40 requests/s as they should be, p99 12 ms"),
            (30, "not kept: 40 of 60 requests/s as they should be, p99 900 ms"),
            (31, "stage: stage 2, 2 web, 1 primary"),
            (32, "taken because the diagnosis at stage 1 asks for it"),
            (40, "moved within 3.1 s; under 13 visits/s 0 of 400 requests failed, 0 were shed"),
            (60, "kept: 70 of 70 requests/s as they should be, p99 30 ms"),
        ];
        let lines = said.map(|(at, line)| (Duration::from_secs(at), line.to_owned())).to_vec();
        assert_eq!(until_diagnosed(&lines, Duration::from_secs(65)), [2, 5].map(Duration::from_secs));
        // One that was interrupted before it had taken a step.
        assert!(until_diagnosed(&lines[..1], Duration::from_secs(11)).is_empty());
    }

    #[test]
    fn a_journeys_page_has_what_is_promised_of_one_and_every_stage() {
        let page = report(0).markdown();
        for line in [
            "| all of it, s | 155.0 (150.0–160.0) | at most 180 |",
            "| from the last step of a stage to its diagnosis, s | 0.50 (0.40–0.60) | at most 90 |",
            "| requests that failed, all rounds | 0 | 0 |",
            "| stage 1, 1 web, 1 primary | 40 (40–40) | the app's processors | - | - | - |",
            "| stage 2, 2 web, 1 primary | at least 75 (75–75) | nothing | yes | 2.00 (2.00–2.00) | 1.88 (1.88–1.88) |",
            "- Round 2: The app serves 40 and 75.",
        ] {
            assert!(page.contains(line), "{line}\n{page}");
        }
        let json = report(3).json();
        assert_eq!(
            (&json["failed"], &json["stages"][1]["gain_measured"]["median"]),
            (&json!(6), &json!(1.875))
        );
    }

    #[test]
    fn what_is_no_journey_is_refused() {
        Journey::parse(&json!({ "verdict": {} }), 1.0, Vec::new()).unwrap_err();
        assert!(!Journey::parse(&told(1), 1.0, Vec::new()).unwrap().passed);
        let not_asked = "the diagnosis at stage 1 does not ask for it: use a larger machine";
        let mut told = told(0);
        told["stages"][1]["taken_because"] = json!(not_asked);
        let journey = Journey::parse(&told, 1.0, Vec::new()).unwrap();
        let recommended: Vec<_> = journey.stages.iter().map(|stage| stage.recommended).collect();
        assert_eq!(recommended, [None, Some(false)]);
    }
}
