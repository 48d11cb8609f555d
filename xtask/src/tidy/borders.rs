//! What crates must not touch, by the words they would touch it with.

use super::House;
use super::finding::Finding;
use super::source::Source;

const PURE_CRATES: &[&str] = &["model", "manifest", "plan", "sqlclass"];

/// Files, sockets, environment, clock, runtime, processes. Addresses and durations are values, and welcome.
const IMPURE: &[&str] = &[
    "std::fs",
    "fs::",
    "TcpListener",
    "TcpStream",
    "UdpSocket",
    "UnixStream",
    "UnixListener",
    "std::env",
    "env::var",
    "SystemTime",
    "Instant",
    "std::thread",
    "std::process",
    "tokio::",
];

/// Where processes may be started, and why.
const STARTERS: &[(&str, &str)] = &[
    ("crates/local/", "the executor: starting processes is what it is for"),
    ("crates/rehearsal/src/generator/process.rs", "what makes the load must not be who measures the app"),
    ("crates/switchback/src/cli/connect.rs", "the command line starts the daemon"),
    ("crates/switchback/src/cli/drill.rs", "what a drill has stopped goes on, also when the drill is killed"),
    ("crates/switchback/src/cli/manifest.rs", "`init` asks git what it ignores"),
    ("crates/testkit/", "tests start Switchbacks"),
    ("xtask/", "house tools run compilers"),
    ("examples/", "not ours"),
    ("fuzz/", "never shipped"),
];

pub fn pure(house: &House) -> Vec<Finding> {
    let of_pure_crates = house
        .rust()
        .filter(|file| PURE_CRATES.iter().any(|name| file.path.starts_with(&format!("crates/{name}/src/"))));
    of_pure_crates.flat_map(|file| uses(file, IMPURE)).collect()
}

pub fn processes(house: &House) -> Vec<Finding> {
    let others = house.rust().filter(|file| !STARTERS.iter().any(|(place, _)| file.path.starts_with(place)));
    others.flat_map(|file| uses(file, &["Command::new(", "libc::fork", "posix_spawn"])).collect()
}

fn uses(file: &Source, words: &[&str]) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (at, line) in file.shipped_code() {
        for word in words.iter().filter(|word| has_word(line, word)) {
            findings.push(Finding::at(&file.path, at, format!("`{word}` has no place here")));
        }
    }
    findings
}

/// `word` in `line`, not as the end of a longer name.
fn has_word(line: &str, word: &str) -> bool {
    line.match_indices(word).any(|(at, _)| {
        let before = line[..at].chars().next_back();
        !before.is_some_and(|c| c.is_alphanumeric() || matches!(c, '_' | '"'))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn uses_in(text: &str) -> usize {
        uses(&Source { path: "crates/plan/src/x.rs".into(), text: text.into() }, IMPURE).len()
    }

    #[test]
    fn a_clock_is_found_and_an_address_is_not() {
        assert_eq!(uses_in("use std::time::Instant;"), 1);
        assert_eq!(uses_in("use std::net::SocketAddr; // not std::fs"), 0);
        assert_eq!(uses_in("struct NoInstant;"), 0);
    }
}
