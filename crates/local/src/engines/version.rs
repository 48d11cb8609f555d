//! PostgreSQL's version, as `postgres --version` says it.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Such as `15.18`, or `19beta1`. Ordered by major, then minor.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct PgVersion {
    major: u32,
    minor: u32,
    /// As it was said, which keeps what is not a number (`19beta1`).
    text: String,
}

impl PgVersion {
    /// Reads `15.18`. `None` when it does not begin with a number.
    pub fn parse(text: &str) -> Option<PgVersion> {
        let digits = |text: &str| {
            let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
            text[..end].parse().ok()
        };
        let (major, minor) = text.split_once('.').unwrap_or((text, "0"));
        Some(PgVersion { major: digits(major)?, minor: digits(minor).unwrap_or(0), text: text.to_owned() })
    }

    /// Reads `postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)`.
    pub fn from_version_line(line: &str) -> Option<PgVersion> {
        let (_, version) = line.split_once("(PostgreSQL) ")?;
        PgVersion::parse(version.split_whitespace().next()?)
    }

    /// Data directories of one major are of no use to another.
    pub fn major(&self) -> u32 {
        self.major
    }

    /// Whether commits wait for a standby from the first on that a start allows. In older minors a session may be served
    /// before the checkpointer has said that they do.
    pub fn commits_wait_from_the_start(&self) -> bool {
        let since = match self.major {
            13 => 21,
            14 => 18,
            15 => 13,
            16 => 9,
            17 => 5,
            major => return major > 17,
        };
        self.minor >= since
    }
}

impl fmt::Display for PgVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl TryFrom<String> for PgVersion {
    type Error = String;

    fn try_from(text: String) -> Result<PgVersion, String> {
        PgVersion::parse(&text)
            .ok_or_else(|| format!("`{text}` is not a PostgreSQL version, such as `15.18`"))
    }
}

impl From<PgVersion> for String {
    fn from(version: PgVersion) -> String {
        version.text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn older_minors_let_commits_go_on_for_a_moment_after_a_start() {
        let waits = |text| PgVersion::parse(text).unwrap().commits_wait_from_the_start();
        for (late, mended) in
            [("13.20", "13.21"), ("14.17", "14.18"), ("15.12", "15.13"), ("16.8", "16.9"), ("17.4", "17.5")]
        {
            assert!(!waits(late) && waits(mended), "{late} {mended}");
        }
        assert!(waits("18.0"));
        assert!(!waits("17beta1"));
    }

    #[test]
    fn versions_are_read_from_what_postgres_says() {
        let version = |line| PgVersion::from_version_line(line).map(|v| (v.major(), v.to_string()));
        assert_eq!(
            version("postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)\n"),
            Some((15, "15.18".to_owned()))
        );
        assert_eq!(version("postgres (PostgreSQL) 19beta1\n"), Some((19, "19beta1".to_owned())));
        assert_eq!(version("postgres: command not found"), None);
    }

    #[test]
    fn a_later_minor_is_newer_even_with_more_digits() {
        assert!(PgVersion::parse("15.9") < PgVersion::parse("15.18"));
        assert!(PgVersion::parse("9.6") < PgVersion::parse("13.0"));
    }
}
