//! docs/guarantees.md: each row names, in backticks in its last column, the tests and drills that prove it.

use std::collections::BTreeSet;

use super::House;
use super::finding::Finding;

const PAGE: &str = "docs/guarantees.md";

pub fn check(house: &House) -> Vec<Finding> {
    let Some(page) = house.file(PAGE) else {
        return vec![Finding::in_file(PAGE, "is missing")];
    };
    let functions: BTreeSet<&str> = house.rust().flat_map(|file| functions(&file.text)).collect();
    check_page(&page.text, &|name| functions.contains(name))
}

fn check_page(text: &str, exists: &dyn Fn(&str) -> bool) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (at, line) in text.lines().enumerate() {
        let Some(row) = line.trim().strip_prefix('|').and_then(|row| row.strip_suffix('|')) else { continue };
        let Some((promise, proof)) = row.rsplit_once('|') else { continue };
        let is_header = proof.trim().chars().all(|c| c == '-' || c == ':')
            || text.lines().nth(at + 1).is_some_and(|next| next.trim_start().starts_with("|-"));
        if is_header {
            continue;
        }
        let proofs: Vec<&str> = proof.split('`').skip(1).step_by(2).map(last_segment).collect();
        if proofs.is_empty() {
            let promise = promise.trim().trim_matches('|').trim();
            findings.push(Finding::at(PAGE, at + 1, format!("no proof is named for: {promise}")));
        }
        for name in proofs.into_iter().filter(|name| !name.contains(' ') && !exists(name)) {
            findings.push(Finding::at(PAGE, at + 1, format!("there is no test `{name}`")));
        }
    }
    findings
}

/// `a_claim` of `drill_scale::a_claim`. What has a space in it is a command line, and stands for itself.
fn last_segment(name: &str) -> &str {
    name.rsplit("::").next().unwrap_or(name)
}

fn functions(text: &str) -> impl Iterator<Item = &str> {
    text.match_indices("fn ").filter_map(|(at, _)| {
        let name = &text[at + 3..];
        name.split(|c: char| !c.is_alphanumeric() && c != '_').next().filter(|name| !name.is_empty())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_promise_without_a_proof_and_a_proof_that_is_gone_are_found() {
        let text = "| promise | proof |\n|---|---|\n| kept | `drill_a::real_test` |\n| bare | none |\n| lost | `gone` |\n";
        let findings = check_page(text, &|name| name == "real_test");
        let said: Vec<String> = findings.iter().map(ToString::to_string).collect();
        let page = "docs/guarantees.md";
        assert_eq!(
            said,
            [format!("{page}:4: no proof is named for: bare"), format!("{page}:5: there is no test `gone`")]
        );
    }
}
