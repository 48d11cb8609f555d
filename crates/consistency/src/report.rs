//! What a run has found, in words.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use crate::check::Violation;
use crate::history::{Fault, Operation, Outcome};
use crate::lists::Node;
use crate::load::Heard;

/// The first of them tell what the others will say.
const VIOLATIONS_SAID: usize = 20;

const ERRORS_SAID: usize = 20;

/// How many operations ended how.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    pub ok: usize,
    pub fail: usize,
    pub info: usize,
}

impl Counts {
    fn of<A>(history: &[Operation<A>]) -> Counts {
        let mut counts = Counts::default();
        for op in history {
            match op.outcome {
                Outcome::Ok => counts.ok += 1,
                Outcome::Fail => counts.fail += 1,
                Outcome::Info => counts.info += 1,
            }
        }
        counts
    }
}

impl fmt::Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} acknowledged, {} refused, {} unknown", self.ok, self.fail, self.info)
    }
}

#[derive(Debug)]
pub struct Report {
    pub seed: u64,
    pub lists: Counts,
    /// Reads that a replica has answered.
    pub on_replicas: usize,
    pub bank: Counts,
    /// By SQLSTATE, or by a word where no server said one.
    pub errors: BTreeMap<String, usize>,
    /// All but that two transactions have met, which an app has to expect (40001, 40P01).
    pub unexpected: Vec<String>,
    /// The longest that a client waited for an answer.
    pub longest: Duration,
    pub faults: Vec<Fault>,
    pub violations: Vec<Violation>,
    /// Where the histories are.
    pub kept: PathBuf,
}

impl Report {
    pub(crate) fn of(
        seed: u64,
        heard: &Heard,
        faults: &[Fault],
        violations: Vec<Violation>,
        kept: PathBuf,
    ) -> Report {
        let mut errors = BTreeMap::new();
        let mut unexpected = Vec::new();
        let said = heard.lists.iter().filter_map(|op| Some((op.completed, op.error.as_ref()?)));
        let said = said.chain(heard.bank.iter().filter_map(|op| Some((op.completed, op.error.as_ref()?))));
        for (at, error) in said.chain(heard.not_connected.iter().map(|(at, error)| (*at, error))) {
            let code = error.split(':').next().unwrap_or_default();
            *errors.entry(code.to_owned()).or_insert(0) += 1;
            if !matches!(code, "40001" | "40P01") || error.contains("ROLLBACK") {
                unexpected.push(format!("at {:.3} s {error}", at.as_secs_f64()));
            }
        }
        let took = heard.lists.iter().map(|op| op.completed - op.invoked);
        let longest = took.chain(heard.bank.iter().map(|op| op.completed - op.invoked)).max();
        Report {
            seed,
            lists: Counts::of(&heard.lists),
            on_replicas: heard.lists.iter().filter(|op| op.act.by == Node::Replica).count(),
            bank: Counts::of(&heard.bank),
            errors,
            unexpected,
            longest: longest.unwrap_or_default(),
            faults: faults.to_vec(),
            violations,
            kept,
        }
    }

    pub fn is_consistent(&self) -> bool {
        self.violations.is_empty()
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let list = |all: Vec<String>| if all.is_empty() { "none".to_owned() } else { all.join(", ") };
        let faults = self
            .faults
            .iter()
            .map(|fault| format!("{} of {} at {:.3} s", fault.name, fault.victim, fault.at.as_secs_f64()));
        let errors = self.errors.iter().map(|(code, count)| format!("{code} {count}"));
        writeln!(f, "seed            {}", self.seed)?;
        writeln!(f, "faults          {}", list(faults.collect()))?;
        writeln!(f, "lists           {}, {} on replicas", self.lists, self.on_replicas)?;
        writeln!(f, "bank            {}", self.bank)?;
        writeln!(f, "errors          {}", list(errors.collect()))?;
        for error in self.unexpected.iter().take(ERRORS_SAID) {
            writeln!(f, "                {error}")?;
        }
        writeln!(f, "longest answer  {:.3} s", self.longest.as_secs_f64())?;
        writeln!(f, "histories       {}", self.kept.display())?;
        if self.is_consistent() {
            return write!(f, "verdict         consistent");
        }
        write!(f, "verdict         NOT CONSISTENT, in {} ways", self.violations.len())?;
        for violation in self.violations.iter().take(VIOLATIONS_SAID) {
            write!(f, "\n  {violation}")?;
        }
        Ok(())
    }
}
