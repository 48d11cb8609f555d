//! Faults put into a real app, and what a rehearsal says gave way: about an hour on a machine that nobody else uses, where
//! others would make every answer "the run says nothing". What came of it is written into `docs/bench/diagnosis.md`.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::{Value, json};

use crate::bench::{machine, page, quiet};
use crate::failure::{Failure, Result};
use crate::flags::Flags;
use crate::setup;
use crate::shell;

/// Where the faults are.
const SUITE: &str = "drill_diagnosis::";
/// What a drill prints before the diagnosis, and before why it was not tried. The last one counts.
const SAID: &str = "said: ";
const SKIPPED: &str = "skipped: ";
/// What is wrong with a run that says nothing, where that is the machine's doing.
const OF_THE_MACHINE: [&str; 5] = [
    "others used",
    "own generator used",
    "the machine is too busy",
    "taken by other guests",
    "were not offered",
];
/// Of a case that said nothing because of the machine.
const TRIES: usize = 2;
/// For the machine to be quiet before a case is tried once more.
const QUIET_LIMIT: Duration = Duration::from_secs(180);

/// # Errors
/// When an answer was wrong, or none could be had.
pub fn run(mut flags: Flags) -> Result {
    let only: String = flags.option("--only")?.unwrap_or_default();
    let consent = setup::Consent::from_flags(&mut flags);
    flags.end()?;
    setup::install(setup::Needs::TEST, consent)?;
    shell::run(tests().arg("--no-run"))?;
    let names = names(&shell::read(drills().args(["--list", &format!("{SUITE}{only}")]))?);
    if names.is_empty() {
        return Err(Failure::usage(format!("there is no case `{only}`")));
    }
    let mut cases = Vec::new();
    for name in names {
        cases.push(tried(name, TRIES, || quiet::wait(QUIET_LIMIT), try_out)?);
    }
    let report = Report { cases };
    print!("{}", report.markdown());
    // A part of the cases is for the one who looks into them; the page shows all.
    if only.is_empty() {
        page::publish("diagnosis", &report.markdown(), &report.json())?;
    }
    match report.count(Came::Right) + report.count(Came::Skipped) == report.cases.len() {
        true => Ok(()),
        false => Err(Failure::new(report.summary())),
    }
}

fn tests() -> Command {
    let mut tests = shell::cargo();
    tests.args(["test", "--quiet", "--release", "--locked", "--package", "switchback", "--test", "it"]);
    tests
}

fn drills() -> Command {
    let mut drills = tests();
    drills.args(["--", "--ignored"]);
    drills
}

/// Of what the tests' own list says.
fn names(listed: &str) -> Vec<String> {
    let name =
        |line: &str| line.strip_suffix(": test").filter(|name| name.starts_with(SUITE)).map(str::to_owned);
    listed.lines().filter_map(name).collect()
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Case {
    /// Such as `an app of a small size is named`.
    name: String,
    said: String,
    came: Came,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Came {
    Right,
    Wrong,
    /// The machine was not quiet, so that nothing was said.
    NotQuiet,
    /// It cannot be put in here.
    Skipped,
}

impl Came {
    fn words(self) -> &'static str {
        match self {
            Came::Right => "right",
            Came::Wrong => "**wrong**",
            Came::NotQuiet => "the machine was not quiet",
            Came::Skipped => "not tried",
        }
    }
}

/// What one run of a case printed, and whether it ended well.
struct Run {
    printed: Vec<String>,
    is_right: bool,
}

/// Tries it, and once more where it says nothing because of the machine.
fn tried(name: String, tries: usize, pause: impl Fn(), run: impl Fn(&str) -> Result<Run>) -> Result<Case> {
    let mut left = tries;
    loop {
        left -= 1;
        let case = case(&name, &run(&name)?);
        if case.came != Came::NotQuiet || left == 0 {
            return Ok(case);
        }
        eprintln!("    {}: the machine was not quiet; once more", case.name);
        pause();
    }
}

fn try_out(name: &str) -> Result<Run> {
    let mut command = drills();
    command.args(["--nocapture", "--test-threads", "1", "--exact", name]);
    eprintln!("    $ {}", shell::line_of(&command));
    let failed = || Failure::while_doing(name.to_owned());
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().map_err(failed())?;
    let mut printed = Vec::new();
    if let Some(stdout) = child.stdout.take() {
        for line in BufReader::new(stdout).lines() {
            let line = line.map_err(failed())?;
            println!("{line}");
            printed.push(line);
        }
    }
    let status = child.wait().map_err(failed())?;
    Ok(Run { printed, is_right: status.success() })
}

fn case(name: &str, run: &Run) -> Case {
    let last = |prefix: &str| run.printed.iter().rev().find_map(|line| line.strip_prefix(prefix));
    let said = last(SAID).or(last(SKIPPED)).unwrap_or("nothing").to_owned();
    let is_of_the_machine =
        said.contains("says nothing") && OF_THE_MACHINE.iter().any(|words| said.contains(words));
    let came = match run.is_right {
        true if last(SAID).is_none() && last(SKIPPED).is_some() => Came::Skipped,
        true => Came::Right,
        false if is_of_the_machine => Came::NotQuiet,
        false => Came::Wrong,
    };
    Case { name: name.strip_prefix(SUITE).unwrap_or(name).replace('_', " "), said, came }
}

struct Report {
    cases: Vec<Case>,
}

impl Report {
    fn count(&self, came: Came) -> usize {
        self.cases.iter().filter(|case| case.came == came).count()
    }

    /// The hit rate, and what is not in it.
    fn summary(&self) -> String {
        let right = self.count(Came::Right);
        let judged = right + self.count(Came::Wrong);
        let mut summary = format!("{right} of {judged} right");
        if judged > 0 {
            summary.push_str(&format!(" ({:.0} %)", right as f64 / judged as f64 * 100.0));
        }
        for (came, words) in [
            (Came::NotQuiet, "said nothing because the machine was not quiet"),
            (Came::Skipped, "could not be tried here"),
        ] {
            match self.count(came) {
                0 => {}
                count => summary.push_str(&format!("; {count} {words}")),
            }
        }
        summary
    }

    fn markdown(&self) -> String {
        let mut page = format!(
            "# What is said of faults that were put in\n\n\
             Measured on {} by `cargo xtask diagnose`.\n\n\
             - Machine: {}\n\
             - A real app in which one thing is too small is driven until it gives way, and asked what that was\n\
             - {}\n\n\
             | case | what was said | |\n|---|---|---|\n",
            machine::today(),
            machine::words(),
            self.summary(),
        );
        for Case { name, said, came } in &self.cases {
            page.push_str(&format!("| {name} | {} | {} |\n", said.replace('|', "\\|"), came.words()));
        }
        page
    }

    fn json(&self) -> Value {
        let cases = self.cases.iter().map(|case| {
            let came = match case.came {
                Came::Right => "right",
                Came::Wrong => "wrong",
                Came::NotQuiet => "not_quiet",
                Came::Skipped => "skipped",
            };
            json!({ "case": case.name, "said": case.said, "came": came })
        });
        json!({
            "date": machine::today(),
            "command": "cargo xtask diagnose",
            "machine": machine::description(),
            "right": self.count(Came::Right),
            "wrong": self.count(Came::Wrong),
            "cases": cases.collect::<Vec<Value>>(),
        })
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    const BUSY: &str =
        "said: the run says nothing about the app: at 12/s others used 40 % of the machine's processors";

    fn run(printed: &[&str], is_right: bool) -> Run {
        Run { printed: printed.iter().map(|line| (*line).to_owned()).collect(), is_right }
    }

    fn came(printed: &[&str], is_right: bool) -> Came {
        case("drill_diagnosis::a_small_pool_is_named", &run(printed, is_right)).came
    }

    #[test]
    fn what_is_wrong_is_told_from_what_says_nothing_because_of_the_machine() {
        assert_eq!(came(&["said: web is full", "said: the pool is full"], true), Came::Right);
        assert_eq!(came(&["said: web is full"], false), Came::Wrong);
        assert_eq!(came(&[BUSY], false), Came::NotQuiet);
        // What the app did is no excuse, and neither is that a drill broke.
        assert_eq!(
            came(&["said: the run says nothing about the app: 9 % of the requests fail"], false),
            Came::Wrong
        );
        assert_eq!(came(&[], false), Came::Wrong);
        assert_eq!(came(&["skipped: no control groups"], true), Came::Skipped);
        let case = case("drill_diagnosis::a_small_pool_is_named", &run(&["said: a", "said: b"], true));
        assert_eq!((case.name.as_str(), case.said.as_str()), ("a small pool is named", "b"));
    }

    #[test]
    fn a_case_that_says_nothing_because_of_the_machine_is_tried_once_more() {
        let check = |answers: &[(&str, bool)], expected: Came| {
            let (tries, pauses) = (Cell::new(0), Cell::new(0));
            let answer = |_: &str| {
                let (said, is_right) = answers[tries.get()];
                tries.set(tries.get() + 1);
                Ok(run(&[said], is_right))
            };
            let case = tried("drill_diagnosis::x".to_owned(), TRIES, || pauses.set(pauses.get() + 1), answer);
            assert_eq!(case.unwrap().came, expected);
            assert_eq!((tries.get(), pauses.get()), (answers.len(), answers.len() - 1));
        };
        check(&[(BUSY, false), ("said: the pool is full", true)], Came::Right);
        check(&[(BUSY, false), (BUSY, false)], Came::NotQuiet);
        check(&[("said: web is full", false)], Came::Wrong);
    }

    #[test]
    fn the_page_has_a_line_for_each_case_and_the_rate_without_those_that_nobody_can_judge() {
        let case = |name: &str, came| Case { name: name.to_owned(), said: "a | b".to_owned(), came };
        let cases = vec![
            case("one", Came::Right),
            case("two", Came::Wrong),
            case("three", Came::NotQuiet),
            case("four", Came::Right),
        ];
        let report = Report { cases };
        let summary = "2 of 3 right (67 %); 1 said nothing because the machine was not quiet";
        assert_eq!(report.summary(), summary);
        let page = report.markdown();
        for line in [
            format!("- {summary}"),
            "| one | a \\| b | right |".to_owned(),
            "| two | a \\| b | **wrong** |".to_owned(),
            "| three | a \\| b | the machine was not quiet |".to_owned(),
        ] {
            assert!(page.lines().any(|there| there == line), "{line}\n{page}");
        }
        assert_eq!(report.json()["cases"][2]["came"], "not_quiet");
    }

    #[test]
    fn the_names_are_those_of_the_suite() {
        let listed = "drill_diagnosis::a: test\ndrill_journey::b: test\n\n1 tests, 0 benchmarks\n";
        assert_eq!(names(listed), ["drill_diagnosis::a"]);
    }
}
