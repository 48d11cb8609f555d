//! One place where a rule is broken.

use std::fmt;

#[derive(Debug, PartialEq, Eq)]
pub struct Finding {
    path: String,
    line: Option<usize>,
    message: String,
}

impl Finding {
    pub fn in_file(path: &str, message: impl Into<String>) -> Finding {
        Finding { path: path.to_owned(), line: None, message: message.into() }
    }

    /// `line` counts from 1.
    pub fn at(path: &str, line: usize, message: impl Into<String>) -> Finding {
        Finding { line: Some(line), ..Finding::in_file(path, message) }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            Some(line) => write!(f, "{}:{line}: {}", self.path, self.message),
            None => write!(f, "{}: {}", self.path, self.message),
        }
    }
}
