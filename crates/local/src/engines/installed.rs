//! PostgreSQLs that somebody has installed.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::{OLDEST_MAJOR, PgVersion, PostgresEngine, Search, Source};

/// Parents of `<major>/bin`: Debian and Ubuntu; openSUSE.
const VERSIONED: &[&str] = &["/usr/lib/postgresql", "/usr/lib/postgresql/versions"];
/// Built from source; Homebrew on Linux and macOS; MacPorts keeps a version in the name, as PGDG's RPMs do.
const PLAIN: &[&str] = &[
    "/usr/local/pgsql/bin",
    "/usr/local/bin",
    "/usr/bin",
    "/opt/homebrew/bin",
    "/home/linuxbrew/.linuxbrew/bin",
];
/// Parents of `<prefix><major>/bin`.
const PREFIXED: &[(&str, &str)] = &[
    ("/usr", "pgsql-"),
    ("/usr/lib", "postgresql"),
    ("/opt/homebrew/opt", "postgresql@"),
    ("/home/linuxbrew/.linuxbrew/opt", "postgresql@"),
    ("/usr/local/opt", "postgresql@"),
];

/// Where the distributions and package managers put it.
pub(super) fn usual_bin_dirs() -> Vec<PathBuf> {
    let mut dirs: Vec<PathBuf> = PLAIN.iter().map(PathBuf::from).collect();
    let children = |parent: &str| std::fs::read_dir(parent).into_iter().flatten().flatten();
    for parent in VERSIONED {
        dirs.extend(children(parent).map(|major| major.path().join("bin")));
    }
    for (parent, prefix) in PREFIXED {
        let named = children(parent).filter(|entry| entry.file_name().to_string_lossy().starts_with(prefix));
        dirs.extend(named.map(|entry| entry.path().join("bin")));
    }
    dirs
}

/// The usable ones, the newest first, and what is wrong with the others.
pub(super) fn all(search: &Search) -> (Vec<PostgresEngine>, Vec<String>) {
    let on_path = search.path.iter().flat_map(std::env::split_paths);
    let candidates = on_path.chain(search.bin_dirs.iter().cloned());
    let real = candidates
        .filter(|dir| dir.join("postgres").is_file())
        // /usr/bin/postgres may be a link into a folder that is listed as well.
        .filter_map(|dir| dir.join("postgres").canonicalize().ok()?.parent().map(Path::to_owned))
        .collect::<BTreeSet<_>>();
    let (mut usable, mut refused) = (Vec::new(), Vec::new());
    for dir in real {
        match examine(&dir, Source::Installed, BTreeMap::new()) {
            Ok(engine) => usable.push(engine),
            Err(why) => refused.push(format!("{}: {why}", dir.display())),
        }
    }
    usable.sort_by(|a, b| b.version.cmp(&a.version));
    (usable, refused)
}

/// Whether the PostgreSQL in `bin_dir` can be used.
///
/// # Errors
/// What is wrong with it, in words.
pub(super) fn examine(
    bin_dir: &Path,
    source: Source,
    env: BTreeMap<String, String>,
) -> Result<PostgresEngine, String> {
    let postgres = bin_dir.join("postgres");
    let output = Command::new(&postgres)
        .arg("--version")
        .envs(&env)
        .stdin(Stdio::null())
        .output()
        .map_err(|cause| format!("`postgres` does not run: {cause}"))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        return Err(format!("`postgres --version` failed: {}", said.trim()));
    }
    let line = String::from_utf8_lossy(&output.stdout);
    let version = PgVersion::from_version_line(&line)
        .ok_or_else(|| format!("`postgres --version` said {:?}", line.trim()))?;
    if version.major() < OLDEST_MAJOR {
        return Err(format!("{version} is older than {OLDEST_MAJOR}, the oldest that is supported"));
    }
    if !bin_dir.join("initdb").is_file() {
        return Err("`initdb` is missing".to_owned());
    }
    if !share_dirs(bin_dir, version.major()).iter().any(|share| share.join("postgres.bki").is_file()) {
        return Err("its share files (`postgres.bki`) are missing".to_owned());
    }
    Ok(PostgresEngine { bin_dir: bin_dir.to_owned(), version, source, env })
}

/// Where `initdb` looks, relative to the programs: PostgreSQL is relocatable.
fn share_dirs(bin_dir: &Path, major: u32) -> Vec<PathBuf> {
    [
        "../share/postgresql".to_owned(),
        "../share".to_owned(),
        "../share/pgsql".to_owned(),
        format!("../share/postgresql@{major}"),
        format!("../share/postgresql{major}"),
        // Debian: /usr/lib/postgresql/15/bin and /usr/share/postgresql/15.
        format!("../../../../share/postgresql/{major}"),
        // openSUSE and Alpine: /usr/lib/postgresql15/bin and /usr/share/postgresql15.
        format!("../../../share/postgresql{major}"),
    ]
    .into_iter()
    .map(|relative| bin_dir.join(relative))
    .collect()
}
