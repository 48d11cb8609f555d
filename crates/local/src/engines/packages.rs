//! The distribution's packages, unpacked without root.
//!
//! `apt-get download` needs no privilege, and PostgreSQL finds its share and library folders relative to its programs,
//! so a package runs from wherever it is unpacked. Shared libraries that the machine lacks come from their own
//! packages, unpacked beside it, and are found by `LD_LIBRARY_PATH`.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::Path;

use super::apt::Apt;
use super::installed::examine;
use super::{OLDEST_MAJOR, PostgresEngine, Progress, Search, Source};

/// A chain of libraries that need libraries ends sooner.
const MAX_LIBRARY_ROUNDS: usize = 6;
/// Newest major looked for in the archive. A later one is found when it is installed.
const NEWEST_MAJOR: u32 = 30;

/// Why packages are of no help here.
#[derive(Debug, thiserror::Error)]
pub(super) enum PackagesError {
    #[error("fetching packages is switched off")]
    SwitchedOff,
    #[error("this machine has no `apt-get` and `dpkg`")]
    NoApt,
    #[error("the package archive has no PostgreSQL (`apt-get update` may help)")]
    NotInArchive,
    #[error("`{command}` failed: {said}")]
    Command { command: String, said: String },
    #[error("PostgreSQL lacks `{library}`, and no package with it is known")]
    Library { library: String },
    #[error("the unpacked PostgreSQL cannot be used: {0}")]
    Unusable(String),
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// What a person types to have PostgreSQL.
pub(super) fn install_command(major: Option<u32>) -> String {
    let has = |program: &str| {
        ["/usr/bin", "/usr/sbin", "/bin", "/sbin"].iter().any(|dir| Path::new(dir).join(program).exists())
    };
    let suffix = major.map(|major| format!("-{major}")).unwrap_or_default();
    if has("apt-get") {
        format!("apt-get install postgresql{suffix}")
    } else if has("dnf") {
        "dnf install postgresql-server".to_owned()
    } else if has("apk") {
        format!("apk add postgresql{}", suffix.trim_start_matches('-'))
    } else if has("pacman") {
        "pacman -S postgresql".to_owned()
    } else {
        format!("apt-get install postgresql{suffix}")
    }
}

/// The environment that unpacked programs need; empty for a `bin_dir` that is not in an unpacked tree.
pub(super) fn env_of(bin_dir: &Path) -> BTreeMap<String, String> {
    match bin_dir.ancestors().find(|dir| dir.join(COMPLETE).is_file()) {
        Some(root) => env(root),
        None => BTreeMap::new(),
    }
}

/// Marks a tree that was unpacked to its end.
const COMPLETE: &str = ".switchback-complete";

/// Returns what is in the cache already, or fetches and unpacks it.
pub(super) fn fetch(
    search: &Search,
    major: Option<u32>,
    progress: &dyn Fn(Progress),
) -> Result<PostgresEngine, PackagesError> {
    let engines = search.cache.join("engines");
    let apt = Apt { path: search.path.as_deref() };
    let cached = newest_first(major).find_map(|major| {
        let root = engines.join(format!("postgresql-{major}"));
        root.join(COMPLETE).is_file().then(|| engine_in(&root, major).ok())?
    });
    if let Some(engine) = cached {
        return Ok(engine);
    }
    let major = apt.newest_of(newest_first(major))?;
    let root = engines.join(format!("postgresql-{major}"));
    let partial = engines.join(format!("postgresql-{major}.partial"));
    if partial.exists() {
        fs::remove_dir_all(&partial)?;
    }
    let debs = partial.join("debs");
    fs::create_dir_all(&debs)?;
    let wanted = [format!("postgresql-{major}"), "libpq5".to_owned()];
    download_and_unpack(&apt, &wanted, &debs, &partial, progress)?;
    add_missing_libraries(&apt, &partial, major, &debs, progress)?;
    engine_in(&partial, major)?;
    fs::remove_dir_all(&debs)?;
    fs::File::create(partial.join(COMPLETE))?.sync_all()?;
    if root.exists() {
        fs::remove_dir_all(&root)?;
    }
    fs::rename(&partial, &root)?;
    engine_in(&root, major)
}

fn newest_first(major: Option<u32>) -> impl Iterator<Item = u32> {
    let range = match major {
        Some(major) => major..=major,
        None => OLDEST_MAJOR..=NEWEST_MAJOR,
    };
    range.rev()
}

fn engine_in(root: &Path, major: u32) -> Result<PostgresEngine, PackagesError> {
    let bin_dir = root.join(format!("usr/lib/postgresql/{major}/bin"));
    examine(&bin_dir, Source::Unpacked, env(root)).map_err(PackagesError::Unusable)
}

fn env(root: &Path) -> BTreeMap<String, String> {
    let mut dirs = Vec::new();
    for lib in ["usr/lib", "lib"] {
        let lib = root.join(lib);
        // The multiarch folder, such as x86_64-linux-gnu.
        let children = fs::read_dir(&lib).into_iter().flatten().flatten();
        let multiarch = children.filter(|dir| dir.file_name().to_string_lossy().contains("-linux-"));
        dirs.extend(multiarch.map(|dir| dir.path().display().to_string()));
    }
    match dirs.is_empty() {
        true => BTreeMap::new(),
        false => BTreeMap::from([("LD_LIBRARY_PATH".to_owned(), dirs.join(":"))]),
    }
}

fn download_and_unpack(
    apt: &Apt<'_>,
    packages: &[String],
    debs: &Path,
    root: &Path,
    progress: &dyn Fn(Progress),
) -> Result<(), PackagesError> {
    progress(Progress::Downloading { packages: packages.len() });
    apt.download(packages, debs)?;
    for deb in fs::read_dir(debs)? {
        let deb = deb?.path();
        if deb.extension().is_some_and(|extension| extension == "deb") {
            let name = deb.file_stem().unwrap_or_default().to_string_lossy();
            let package = name.split('_').next().unwrap_or_default().to_owned();
            progress(Progress::Unpacking { package });
            apt.unpack(&deb, root)?;
            fs::remove_file(&deb)?;
        }
    }
    Ok(())
}

/// Libraries may need libraries, so: again until nothing is missing.
fn add_missing_libraries(
    apt: &Apt<'_>,
    root: &Path,
    major: u32,
    debs: &Path,
    progress: &dyn Fn(Progress),
) -> Result<(), PackagesError> {
    let postgres = root.join(format!("usr/lib/postgresql/{major}/bin/postgres"));
    let missing = || apt.missing_libraries(&postgres, &env(root));
    let mut lacking = missing()?;
    if lacking.is_empty() {
        return Ok(());
    }
    let dependencies = apt.dependencies(&format!("postgresql-{major}"))?;
    for _ in 0..MAX_LIBRARY_ROUNDS {
        let mut packages: Vec<String> =
            lacking.iter().filter_map(|library| package_of(library, &dependencies)).collect();
        packages.sort();
        packages.dedup();
        if packages.is_empty() {
            break;
        }
        download_and_unpack(apt, &packages, debs, root, progress)?;
        lacking = missing()?;
        if lacking.is_empty() {
            return Ok(());
        }
    }
    Err(PackagesError::Library { library: lacking.swap_remove(0) })
}

/// Debian policy names a library's package after its soname: `libicuuc.so.72` is in `libicu72`, `libpq.so.5` in
/// `libpq5`. So: the dependency that shares the longest beginning, of those that end in the same version.
fn package_of(library: &str, dependencies: &[String]) -> Option<String> {
    let (stem, version) = library.split_once(".so")?;
    let version = version.trim_start_matches('.');
    let shared = |package: &str| {
        let pairs = stem.bytes().zip(package.bytes());
        pairs.take_while(|(a, b)| a == b).count()
    };
    dependencies
        .iter()
        .filter(|package| {
            let base = package.split(':').next().unwrap_or(package).trim_end_matches("t64");
            version.is_empty() || base.ends_with(version)
        })
        .max_by_key(|package| shared(package))
        .filter(|package| shared(package) > "lib".len())
        .cloned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_library_is_looked_for_in_the_package_that_is_named_after_it() {
        let dependencies: Vec<String> =
            ["libicu72", "libpq5", "libldap-2.5-0", "libxml2", "libllvm14", "libssl3t64"]
                .map(str::to_owned)
                .to_vec();
        let package = |library| package_of(library, &dependencies);
        assert_eq!(package("libicuuc.so.72").as_deref(), Some("libicu72"));
        assert_eq!(package("libpq.so.5").as_deref(), Some("libpq5"));
        assert_eq!(package("libxml2.so.2").as_deref(), Some("libxml2"));
        assert_eq!(package("libssl.so.3").as_deref(), Some("libssl3t64"));
        assert_eq!(package("libldap-2.5.so.0").as_deref(), Some("libldap-2.5-0"));
        assert_eq!(package("libzzz.so.1"), None);
    }
}
