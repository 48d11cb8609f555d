//! Words that do not belong: leftovers of work, and the place and means of it.

use super::House;
use super::finding::Finding;
use super::source::Source;

/// Spelled in halves, so that this file does not break its own rule.
const FOREIGN: &[(&str, &str)] = &[
    (concat!("/wo", "rk/"), "a path of the place it was written at"),
    (concat!("../sha", "red"), "a path of the place it was written at"),
    (concat!("cra", "tes.io"), "a registry is named by no more than its client's defaults"),
    (concat!("py", "pi.org"), "a registry is named by no more than its client's defaults"),
    (concat!("python", "hosted.org"), "a registry is named by no more than its client's defaults"),
    (concat!("npm", "js.org"), "a registry is named by no more than its client's defaults"),
    (concat!("proxy.go", "lang.org"), "a registry is named by no more than its client's defaults"),
    (concat!("A", "I"), "a means of writing"),
    (concat!("L", "LM"), "a means of writing"),
    (concat!("assis", "tant"), "a means of writing"),
    (concat!("this sess", "ion"), "a means of writing"),
    (concat!("previous sess", "ion"), "a means of writing"),
];

const UNFINISHED: &[(&str, &str)] = &[
    (concat!("to", "do!("), "finish it, or leave it out"),
    (concat!("unimpl", "emented!("), "finish it, or leave it out"),
    (concat!("db", "g!("), "say it with tracing, or not at all"),
    (concat!("#[ign", "ore]"), "say why: #[ignore = \"reason\"]"),
    (concat!("TO", "DO"), "finish it, or leave it out"),
    (concat!("FIX", "ME"), "finish it, or leave it out"),
];

pub fn foreign(house: &House) -> Vec<Finding> {
    house.files.iter().flat_map(|file| found(file, FOREIGN)).collect()
}

pub fn unfinished(house: &House) -> Vec<Finding> {
    house.rust().flat_map(|file| found(file, UNFINISHED)).collect()
}

fn found(file: &Source, words: &[(&str, &str)]) -> Vec<Finding> {
    // Nearly every file has none of them, and is passed over whole.
    let mut findings = Vec::new();
    for (word, why) in words.iter().filter(|(word, _)| file.text.contains(word)) {
        for (at, _) in file.text.lines().enumerate().filter(|(_, line)| stands_alone(line, word)) {
            findings.push(Finding::at(&file.path, at + 1, format!("`{word}`: {why}")));
        }
    }
    findings
}

/// `word` in `line`, not inside a longer word.
fn stands_alone(line: &str, word: &str) -> bool {
    let part_of_word = |c: char| c.is_alphanumeric() || c == '_';
    let is_word = |c: Option<char>| c.is_some_and(part_of_word);
    line.match_indices(word).any(|(at, _)| {
        let (before, after) = (line[..at].chars().next_back(), line[at + word.len()..].chars().next());
        let begins = word.starts_with(part_of_word);
        let ends = word.ends_with(part_of_word);
        !(begins && is_word(before) || ends && is_word(after))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_inside_a_longer_one_is_another_word() {
        let word = FOREIGN.iter().map(|(word, _)| *word).find(|word| word.len() == 2).unwrap();
        assert!(stands_alone(&format!("written by {word}."), word));
        assert!(!stands_alone(&format!("F{word}LED"), word));
    }
}
