//! The licences of everything we are built on, against the list in deny.toml.
//!
//! `cargo deny check` says the same and more (advisories, bans); this needs nothing installed and no network.

use super::House;
use super::finding::Finding;

const LIST: &str = "deny.toml";

pub fn check(house: &House) -> Vec<Finding> {
    let Some(list) = house.file(LIST) else { return vec![Finding::in_file(LIST, "is missing")] };
    let allowed = allow_list(&list.text);
    let mut findings = Vec::new();
    for package in house.metadata["packages"].as_array().into_iter().flatten() {
        let name = package["name"].as_str().unwrap_or_default();
        match package["license"].as_str() {
            Some(licence) if satisfies(licence, &allowed) => {}
            Some(licence) => findings.push(Finding::in_file(LIST, format!("`{name}` is under {licence}"))),
            None => findings.push(Finding::in_file(LIST, format!("`{name}` names no licence"))),
        }
    }
    findings
}

/// The strings of `allow = [...]` under `[licenses]`.
fn allow_list(text: &str) -> Vec<&str> {
    let section = text.split("[licenses]").nth(1).unwrap_or_default();
    let list = section.split_once("allow = [").and_then(|(_, rest)| rest.split_once(']'));
    list.map_or_else(Vec::new, |(list, _)| list.split('"').skip(1).step_by(2).collect())
}

/// An SPDX expression: one of the parts of every `OR`, all of the parts of every `AND`.
fn satisfies(expression: &str, allowed: &[&str]) -> bool {
    let words = expression.replace('(', " ( ").replace(')', " ) ").replace('/', " OR ");
    let words: Vec<&str> = words.split_whitespace().collect();
    let mut at = 0;
    let result = either(&words, &mut at, allowed);
    result && at == words.len()
}

fn either(words: &[&str], at: &mut usize, allowed: &[&str]) -> bool {
    let mut result = both(words, at, allowed);
    while words.get(*at) == Some(&"OR") {
        *at += 1;
        result |= both(words, at, allowed);
    }
    result
}

fn both(words: &[&str], at: &mut usize, allowed: &[&str]) -> bool {
    let mut result = one(words, at, allowed);
    while words.get(*at) == Some(&"AND") {
        *at += 1;
        result &= one(words, at, allowed);
    }
    result
}

fn one(words: &[&str], at: &mut usize, allowed: &[&str]) -> bool {
    let Some(word) = words.get(*at) else { return false };
    *at += 1;
    if *word == "(" {
        let result = either(words, at, allowed);
        *at += 1;
        return result;
    }
    if words.get(*at) == Some(&"WITH") {
        // An exception only ever gives more freedom.
        *at += 2;
    }
    allowed.contains(word)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn expressions_are_read_as_they_are_meant() {
        let allowed = ["MIT", "Apache-2.0", "Unicode-3.0"];
        assert!(satisfies("MIT OR GPL-3.0", &allowed));
        assert!(satisfies("(MIT OR Apache-2.0) AND Unicode-3.0", &allowed));
        assert!(satisfies("Apache-2.0 WITH LLVM-exception", &allowed));
        assert!(!satisfies("MIT AND GPL-3.0", &allowed));
        assert!(!satisfies("AGPL-3.0", &allowed));
    }

    #[test]
    fn the_list_is_read_from_its_own_section() {
        let text = "[bans]\nallow = [\"x\"]\n[licenses]\nallow = [\n  \"MIT\",\n  \"ISC\",\n]\n";
        assert_eq!(allow_list(text), ["MIT", "ISC"]);
    }
}
