//! Everything that must pass, in the order in which it fails fastest.

use std::process::Command;

use crate::drivers;
use crate::failure::{Failure, Result};
use crate::flags::Flags;
use crate::house;
use crate::setup;
use crate::shell::{self, Phases};
use crate::tidy;

/// How much of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Scope {
    Everything,
    /// All but the drills.
    Quick,
    Drills,
}

/// # Errors
/// At the first phase that fails.
pub fn run(mut flags: Flags) -> Result {
    let scope = match (flags.switch("--quick"), flags.switch("--drills")) {
        (true, true) => return Err(Failure::usage("--quick leaves out what --drills asks for")),
        (true, false) => Scope::Quick,
        (false, true) => Scope::Drills,
        (false, false) => Scope::Everything,
    };
    let consent = setup::Consent::from_flags(&mut flags);
    flags.end()?;
    let mut phases = Phases::default();
    let result = run_phases(&mut phases, scope, consent);
    eprintln!("\n==> {}", phases.summary());
    result
}

fn run_phases(phases: &mut Phases, scope: Scope, consent: setup::Consent) -> Result {
    let mut runner = None;
    phases.run("setup", || {
        setup::install(setup::Needs::TEST, consent)?;
        drivers::install()?;
        runner = setup::nextest();
        Ok(())
    })?;
    if scope != Scope::Drills {
        phases.run("format", || shell::run(shell::cargo().args(["fmt", "--all", "--check"])))?;
        phases.run("house rules", tidy::run)?;
        phases.run("clippy", clippy)?;
        phases.run("tests", || {
            let result = shell::run(&mut tests(runner.as_deref()));
            if runner.is_some() {
                say_what_was_skipped();
            }
            result
        })?;
        phases.run("documentation tests", || {
            shell::run(shell::cargo().args(["test", "--quiet", "--workspace", "--doc", "--locked"]))
        })?;
        phases.run("examples/frontpage", frontpage)?;
    }
    if scope != Scope::Quick {
        phases.run("drills", || shell::run(&mut drills(runner.as_deref(), scope)))?;
    }
    // They need the example in release as well: with a cold cache that and all else takes more than half an hour.
    if scope == Scope::Drills {
        phases.run("drills on examples/frontpage", crate::drills::run)?;
    }
    Ok(())
}

/// Also that the fuzz targets compile: what they test is compiled for this anyway.
fn clippy() -> Result {
    let arguments =
        ["clippy", "--quiet", "--workspace", "--all-targets", "--features", "fuzz/targets", "--locked"];
    shell::run(shell::cargo().args(arguments).args(["--", "-D", "warnings"]))
}

/// Runs under cargo's own runner where nextest cannot be had: slower, and a test that breaks its process takes others
/// with it, but the same tests.
fn tests(runner: Option<&[String]>) -> Command {
    match runner {
        Some(runner) => nextest(runner, &["run", "--workspace", "--locked", "--no-fail-fast"]),
        None => {
            let mut command = shell::cargo();
            command.args(["test", "--workspace", "--all-targets", "--locked", "--no-fail-fast", "--"]);
            command.args(["--skip", "drill_"]);
            command
        }
    }
}

/// A test that finds nothing to test on says so and passes; whoever reads that all have passed should know.
fn say_what_was_skipped() {
    // Where cargo builds is none of its business.
    let report = house::root().join("target/nextest/default/junit.xml");
    match std::fs::read_to_string(&report) {
        Ok(text) => skipped(&text).iter().for_each(|line| eprintln!("    skipped: {line}")),
        Err(error) => eprintln!("    {}: {error}; what was skipped is not known", report.display()),
    }
}

/// The tests that have said on a line of its own that they are skipped, and why.
fn skipped(junit: &str) -> Vec<String> {
    let (mut test, mut found) = ("", Vec::new());
    for line in junit.lines() {
        if let Some((_, rest)) = line.split_once("<testcase name=\"") {
            test = rest.split('"').next().unwrap_or_default();
        }
        let said = line.trim_start();
        let said =
            ["<system-out>", "<system-err>"].iter().find_map(|tag| said.strip_prefix(tag)).unwrap_or(said);
        if let Some(why) = said.strip_prefix("skipped: ") {
            found.push(format!("{test}: {}", why.split("</system-").next().unwrap_or_default()));
        }
    }
    found
}

/// Also those that would make everything else take more than half an hour.
const ALL_DRILLS: &str = "test(/(^|::)drill_|a_primary_that_does_not_shut_down_in_its_time/)";

/// Whole Switchbacks under load, one after the other: two at once would measure each other. Unoptimised, and of the whole
/// workspace, as the tests before them: to build all anew, as other features of libraries would, takes longer than they take.
fn drills(runner: Option<&[String]>, scope: Scope) -> Command {
    match runner {
        Some(runner) => {
            let mut command =
                nextest(runner, &["run", "--profile", "drills", "--workspace", "--locked", "--no-fail-fast"]);
            if scope == Scope::Drills {
                command.args(["--ignore-default-filter", "-E", ALL_DRILLS]);
            }
            command
        }
        None => {
            let mut command = shell::cargo();
            command.args(["test", "--workspace", "--locked", "--tests"]);
            command.args(["--no-fail-fast", "--", "drill_", "--test-threads", "1"]);
            command
        }
    }
}

fn nextest(runner: &[String], arguments: &[&str]) -> Command {
    let mut command = shell::cargo();
    let cargo = command.get_program().to_owned();
    if let Some((program, first)) = runner.split_first() {
        let mut nextest = shell::run_of_cargo(program);
        nextest.args(first).env("CARGO", cargo);
        command = nextest;
    }
    command.args(arguments);
    command
}

/// The example is a workspace of its own, as a user's app would be.
fn frontpage() -> Result {
    let target = house::target().join("frontpage");
    shell::run(shell::cargo().args(["fmt", "--check"]).current_dir(house::frontpage()))?;
    let mut test = shell::cargo();
    test.args(["test", "--quiet", "--locked", "--target-dir"]).arg(&target);
    shell::run(test.current_dir(house::frontpage()))?;
    // Behind the tests, which have built what both need.
    let mut clippy = shell::cargo();
    clippy.args(["clippy", "--quiet", "--locked", "--all-targets", "--target-dir"]).arg(&target);
    shell::run(clippy.args(["--", "-D", "warnings"]).current_dir(house::frontpage()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_has_said_that_it_is_skipped_is_named_with_the_reason() {
        let junit = "\
            <testsuite name=\"switchback::it\">\n\
                <testcase name=\"full_disk::a\" classname=\"switchback::it\">\n\
                    <system-out>\nrunning 1 test\ntest full_disk::a ... ok\n</system-out>\n\
                    <system-err>skipped: a disk of its own cannot be mounted</system-err>\n\
                </testcase>\n\
                <testcase name=\"owners::b\" classname=\"switchback::it\">\n\
                    <system-out>\nrunning 1 test\nskipped: only root may\n</system-out>\n\
                    <system-err>2 requests were skipped: they came late</system-err>\n\
                </testcase>\n\
            </testsuite>\n";
        assert_eq!(
            skipped(junit),
            ["full_disk::a: a disk of its own cannot be mounted", "owners::b: only root may"]
        );
    }
}
