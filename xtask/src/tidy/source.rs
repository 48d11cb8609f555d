//! The files people write: everything in the repository but what is built, locked or left by a run.

use std::path::Path;

use crate::failure::{Failure, Result};
use crate::house;

/// In a worktree `.git` is a file.
const SKIPPED: &[&str] = &["target", ".git", ".switchback", ".venv", "__pycache__", "node_modules", "corpus"];

/// A text file.
pub struct Source {
    /// Relative to the root, with `/`.
    pub path: String,
    pub text: String,
}

impl Source {
    /// Lines with their numbers from 1, without `//` comments. A `//` inside a string cuts that line short, which
    /// makes the rules lenient, never wrong.
    pub fn code(&self) -> impl Iterator<Item = (usize, &str)> {
        self.text.lines().enumerate().map(|(at, line)| (at + 1, line.split("//").next().unwrap_or_default()))
    }

    /// The same, without what only tests see: files and folders of tests, and a `mod tests` at a file's end.
    pub fn shipped_code(&self) -> impl Iterator<Item = (usize, &str)> {
        let whole = self.is_test();
        self.code().take_while(move |(_, line)| !whole && !line.trim_start().starts_with("#[cfg(test)]"))
    }

    fn is_test(&self) -> bool {
        let file = self.path.rsplit('/').next().unwrap_or_default();
        self.path.contains("/tests/") || matches!(file, "tests.rs" | "properties.rs")
    }
}

/// Every text file of the house.
pub fn all() -> Result<Vec<Source>> {
    let mut files = Vec::new();
    gather(house::root(), &mut files)?;
    files.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(files)
}

fn gather(folder: &Path, files: &mut Vec<Source>) -> Result {
    let entries = std::fs::read_dir(folder).map_err(Failure::while_doing(folder.display()))?;
    for entry in entries.flatten() {
        let (path, name) = (entry.path(), entry.file_name());
        let Ok(kind) = entry.file_type() else { continue };
        if SKIPPED.iter().any(|skipped| name == *skipped) {
            continue;
        }
        if kind.is_dir() {
            gather(&path, files)?;
        } else if kind.is_file() && path.extension().is_none_or(|extension| extension != "lock") {
            // What is not text has no words in it.
            let Ok(text) = std::fs::read_to_string(&path) else { continue };
            let path = path.strip_prefix(house::root()).unwrap_or(&path).display().to_string();
            files.push(Source { path, text });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comments_and_tests_are_not_shipped_code() {
        let text = "use a; // b\n/// c\nfn d() {}\n#[cfg(test)]\nmod tests { e }\n".to_owned();
        let file = Source { path: "crates/x/src/lib.rs".into(), text };
        let lines: Vec<_> = file.shipped_code().map(|(at, line)| (at, line.trim())).collect();
        assert_eq!(lines, [(1, "use a;"), (2, ""), (3, "fn d() {}")]);
    }
}
