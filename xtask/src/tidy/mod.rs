//! The house rules, each with its reason, as `cargo xtask tidy` and as tests.
//!
//! What a compiler or clippy can hold is left to them. Here is the rest: borders between crates, words, promises that
//! name their proof. A rule that only prose states wears away.

mod borders;
mod finding;
mod imports;
mod licences;
mod promises;
mod source;
mod words;

use serde_json::Value;

use crate::failure::{Failure, Result};
use crate::shell;
use finding::Finding;
use source::Source;

/// Longer files are named, not refused: some ideas are long.
const LONG_FILE_LINES: usize = 600;

/// Everything the rules look at.
struct House {
    files: Vec<Source>,
    /// What `cargo metadata` says, dependencies included.
    metadata: Value,
}

impl House {
    fn read() -> Result<House> {
        let files = source::all()?;
        let mut command = shell::cargo();
        command.args(["metadata", "--format-version", "1", "--locked", "--all-features"]);
        let metadata = serde_json::from_str(&shell::read(&mut command)?)
            .map_err(Failure::while_doing("cargo metadata"))?;
        Ok(House { files, metadata })
    }

    fn file(&self, path: &str) -> Option<&Source> {
        self.files.iter().find(|file| file.path == path)
    }

    fn rust(&self) -> impl Iterator<Item = &Source> {
        self.files.iter().filter(|file| file.path.ends_with(".rs"))
    }
}

struct Rule {
    name: &'static str,
    /// Why we hold to it.
    reason: &'static str,
    check: fn(&House) -> Vec<Finding>,
}

const RULES: &[Rule] = &[
    Rule {
        name: "the import table is true",
        reason: "ARCHITECTURE.md says who may know whom; a border that is only prose wears away",
        check: imports::check,
    },
    Rule {
        name: "every crate says in one line what it is",
        reason: "`cargo metadata` and the list of crates are a table of contents",
        check: imports::descriptions,
    },
    Rule {
        name: "pure crates stay pure",
        reason: "model, manifest, plan and sqlclass decide from values alone, so that every decision can be tested and replayed",
        check: borders::pure,
    },
    Rule {
        name: "processes are started in few places",
        reason: "the supervisor must know every process there is: what it does not know it cannot adopt, limit or stop",
        check: borders::processes,
    },
    Rule {
        name: "the code is finished",
        reason: "leftovers of debugging and tests switched off in silence are promises nobody keeps",
        check: words::unfinished,
    },
    Rule {
        name: "the text is about the product",
        reason: "where and by what means it was written is nobody's concern, and such paths mean nothing elsewhere",
        check: words::foreign,
    },
    Rule {
        name: "every promise names a proof that exists",
        reason: "a promise without a proof is not written down, and a proof that was renamed is none",
        check: promises::check,
    },
    Rule {
        name: "licences of dependencies are on the list",
        reason: "everyone may use and change what we give them, under terms they know",
        check: licences::check,
    },
];

/// Checks every rule, and says what is broken and why it matters.
///
/// # Errors
/// When a rule is broken.
pub fn run() -> Result {
    let house = House::read()?;
    let mut broken = 0;
    for rule in RULES {
        let findings = (rule.check)(&house);
        if findings.is_empty() {
            continue;
        }
        broken += 1;
        eprintln!("\n{}: because {}", rule.name, rule.reason);
        for finding in findings {
            eprintln!("  {finding}");
        }
    }
    for file in house.rust().filter(|file| file.text.lines().count() > LONG_FILE_LINES) {
        let lines = file.text.lines().count();
        eprintln!(
            "note: {} has {lines} lines; a file that needs a table of contents wants to be a folder",
            file.path
        );
    }
    match broken {
        0 => Ok(()),
        1 => Err(Failure::new("a house rule is broken")),
        many => Err(Failure::new(format!("{many} house rules are broken"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn holds(check: fn(&House) -> Vec<Finding>) {
        let findings: Vec<String> = check(&House::read().unwrap()).iter().map(ToString::to_string).collect();
        assert!(findings.is_empty(), "\n{}", findings.join("\n"));
    }

    #[test]
    fn crates_import_what_the_architecture_says() {
        holds(imports::check);
        holds(imports::descriptions);
    }

    #[test]
    fn borders_hold() {
        holds(borders::pure);
        holds(borders::processes);
    }

    #[test]
    fn the_code_is_finished_and_about_the_product() {
        holds(words::unfinished);
        holds(words::foreign);
    }

    #[test]
    fn every_promise_names_a_proof_that_exists() {
        holds(promises::check);
    }

    #[test]
    fn licences_are_on_the_list() {
        holds(licences::check);
    }
}
