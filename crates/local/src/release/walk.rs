//! Which files belong to a release: all that git does not ignore and `.switchbackignore` does not name, and what
//! `include` names even so. Never `.git`, never Switchback's own state, and not its manifest and lock file either: an app
//! knows nothing of Switchback, and a changed size must not make a new release.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::{self, Metadata};
use std::os::unix::fs::FileTypeExt;
use std::path::{Component, Path, PathBuf};

use ignore::WalkBuilder;
use ignore::gitignore::{Gitignore, GitignoreBuilder};

use super::{MAX_FILES, ReleaseError};

/// Wherever they are.
const NEVER: &[&str] = &[".git", ".switchback"];
/// Beside each other at the root.
const OURS: &[&str] = &["switchback.toml", crate::engines::LOCK_FILE];
const IGNORE_FILE: &str = ".switchbackignore";

/// By path relative to the root, which sorts them; the root itself is not among them.
pub(super) type Entries = BTreeMap<PathBuf, Entry>;

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Entry {
    Folder,
    File,
    /// With its target as it is written.
    Link(PathBuf),
}

/// What a release of `app_dir` consists of. `state` is a folder that is left out wherever it is.
pub(super) fn release_of(app_dir: &Path, include: &[String], state: &Path) -> Result<Entries, ReleaseError> {
    let mut walk =
        Walk { root: app_dir.to_owned(), skip: state.canonicalize().ok(), entries: Entries::new() };
    let mut builder = WalkBuilder::new(app_dir);
    builder
        .standard_filters(false)
        .parents(true)
        .git_ignore(true)
        .git_exclude(true)
        // Not the user's own global file: the same folder is the same release for everybody.
        .git_global(false)
        // A .gitignore means what it says also before `git init`.
        .require_git(false)
        .add_custom_ignore_filename(IGNORE_FILE);
    walk.add_all(&mut builder, |_, _| true)?;
    for pattern in include {
        walk.include(pattern)?;
    }
    Ok(walk.entries)
}

/// Whether there is a file in it that could be of use to an app. What says what is ignored could not.
pub(super) fn holds_anything(entries: &Entries) -> bool {
    let ignoring = |path: &Path| [".gitignore", IGNORE_FILE].iter().any(|name| path.ends_with(name));
    entries.iter().any(|(path, entry)| *entry != Entry::Folder && !ignoring(path))
}

/// Whether there would be nothing in a release of `app_dir` even if nothing were ignored.
pub(super) fn is_bare(app_dir: &Path, state: &Path) -> Result<bool, ReleaseError> {
    let mut walk =
        Walk { root: app_dir.to_owned(), skip: state.canonicalize().ok(), entries: Entries::new() };
    walk.add_all(WalkBuilder::new(app_dir).standard_filters(false), |_, _| true)?;
    Ok(!holds_anything(&walk.entries))
}

/// Everything below `root`.
pub(super) fn everything(root: &Path) -> Result<Entries, ReleaseError> {
    let mut walk = Walk { root: root.to_owned(), skip: None, entries: Entries::new() };
    walk.add_all(WalkBuilder::new(root).standard_filters(false), |_, _| true)?;
    Ok(walk.entries)
}

struct Walk {
    root: PathBuf,
    skip: Option<PathBuf>,
    entries: Entries,
}

impl Walk {
    fn add_all(
        &mut self,
        builder: &mut WalkBuilder,
        wanted: impl Fn(&Path, &Metadata) -> bool,
    ) -> Result<usize, ReleaseError> {
        let skip = self.skip.clone();
        let ours: Vec<PathBuf> = OURS.iter().map(|name| self.root.join(name)).collect();
        builder.follow_links(false).filter_entry(move |entry| {
            let named = |never: &&str| entry.file_name() == OsStr::new(never);
            let is_state = skip.as_deref().is_some_and(|skip| is_same_folder(entry.path(), skip));
            !NEVER.iter().any(named) && !ours.iter().any(|ours| ours == entry.path()) && !is_state
        });
        let mut added = 0;
        for entry in builder.build() {
            let path = entry.map_err(ReleaseError::Walk)?.into_path();
            let metadata = fs::symlink_metadata(&path).map_err(ReleaseError::io(&path))?;
            if wanted(&path, &metadata) {
                self.add(&path, &metadata)?;
                added += 1;
            }
        }
        Ok(added)
    }

    fn add(&mut self, path: &Path, metadata: &Metadata) -> Result<(), ReleaseError> {
        let relative = match path.strip_prefix(&self.root) {
            Ok(relative) if relative.as_os_str().is_empty() => return Ok(()),
            Ok(relative) => relative,
            Err(_) => return Ok(()),
        };
        // The folders that lead there may have been ignored.
        for folder in relative.ancestors().skip(1).filter(|folder| !folder.as_os_str().is_empty()) {
            self.entries.entry(folder.to_owned()).or_insert(Entry::Folder);
        }
        let kind = metadata.file_type();
        let special = |kind| Err(ReleaseError::Special { path: path.to_owned(), kind });
        let entry = if kind.is_dir() {
            Entry::Folder
        } else if kind.is_file() {
            Entry::File
        } else if kind.is_symlink() {
            Entry::Link(fs::read_link(path).map_err(ReleaseError::io(path))?)
        } else if kind.is_socket() {
            return special("socket");
        } else if kind.is_fifo() {
            return special("named pipe");
        } else {
            return special("device");
        };
        self.entries.insert(relative.to_owned(), entry);
        if self.entries.len() > MAX_FILES { Err(ReleaseError::TooManyFiles) } else { Ok(()) }
    }

    /// A pattern is a path or a glob, from the root of the app; a folder means everything in it.
    fn include(&mut self, pattern: &str) -> Result<(), ReleaseError> {
        let refuse =
            |reason: &str| ReleaseError::Include { pattern: pattern.to_owned(), reason: reason.to_owned() };
        let normal = |component| matches!(component, Component::Normal(_) | Component::CurDir);
        let trimmed = pattern.trim_start_matches("./");
        if trimmed.is_empty() || !Path::new(pattern).components().all(normal) {
            return Err(refuse("must be a path inside of the app's folder"));
        }
        if NEVER.iter().chain(OURS).any(|never| Path::new(trimmed).starts_with(never)) {
            return Err(refuse("never belongs to a release"));
        }
        let mut base = PathBuf::new();
        for component in Path::new(trimmed).components() {
            if component.as_os_str().to_string_lossy().contains(['*', '?', '[', '{', '\\']) {
                break;
            }
            base.push(component);
        }
        let start = self.root.join(&base);
        // Not `exists`: a dangling link is something too.
        if fs::symlink_metadata(&start).is_err() {
            return Err(refuse("is not there"));
        }
        let mut builder = WalkBuilder::new(&start);
        builder.standard_filters(false);
        let added = if base == Path::new(trimmed) {
            self.add_all(&mut builder, |_, _| true)?
        } else {
            let matcher = matcher(&self.root, trimmed).map_err(|error| refuse(&error.to_string()))?;
            let matches = |path: &Path, metadata: &Metadata| {
                matcher.matched_path_or_any_parents(path, metadata.is_dir()).is_ignore()
            };
            self.add_all(&mut builder, matches)?
        };
        if added == 0 { Err(refuse("matches nothing")) } else { Ok(()) }
    }
}

/// Git's own rules for globs, anchored at the root. What git would ignore by it is what we take.
fn matcher(root: &Path, pattern: &str) -> Result<Gitignore, ignore::Error> {
    let mut builder = GitignoreBuilder::new(root);
    builder.add_line(None, &format!("/{pattern}"))?;
    builder.build()
}

fn is_same_folder(path: &Path, canonical: &Path) -> bool {
    path.file_name() == canonical.file_name() && path.canonicalize().is_ok_and(|path| path == canonical)
}
