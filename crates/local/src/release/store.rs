//! Storing a release: list, read, name, copy, flush, rename.

use std::fs;
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt, fchown, lchown, symlink};
use std::path::{Component, Path, PathBuf};

use jiff::Timestamp;
use model::ReleaseId;

use super::digest::{Content, Hashed, Stamp, hash_all, of_release};
use super::{DiskFloor, ENTRIES, Metadata, ReleaseError, Releases, walk};
use crate::user::running_as_root;

const ID_HEX_DIGITS: usize = 12;
/// Progress is told this often: after so many files.
const PROGRESS_FILES: u64 = 64;

/// What a release is made of.
#[derive(Debug, Clone, Copy)]
pub struct Source<'a> {
    pub app_dir: &'a Path,
    /// Paths and globs that belong to the release even when git ignores them.
    pub include: &'a [String],
    pub run: &'a str,
    pub release_command: Option<&'a str>,
}

/// How far storing has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress {
    /// Finding out whether this content is stored already.
    Reading {
        files: u64,
        bytes: u64,
        of_files: u64,
    },
    Copying {
        files: u64,
        bytes: u64,
        of_files: u64,
        of_bytes: u64,
    },
    Syncing,
}

/// What [`Releases::snapshot`] stored or found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot {
    pub metadata: Metadata,
    /// Whether the content was stored before, so that nothing was copied.
    pub was_stored: bool,
    /// Links that point out of the release, relative to its root: kept as they are, as virtual environments have them.
    /// What they point at is not part of the release.
    pub outward_links: Vec<PathBuf>,
}

impl Releases {
    /// Stores the app's folder as it is now.
    ///
    /// # Errors
    /// When a file cannot be read, changes meanwhile or is none, when `include` names what is not there, or when the
    /// disk would fall below the floor. Nothing of it stays.
    pub fn snapshot(
        &self,
        source: &Source<'_>,
        floor: DiskFloor,
        progress: &mut dyn FnMut(Progress),
    ) -> Result<Snapshot, ReleaseError> {
        let _lock = self.lock()?;
        self.clean()?;
        // The state folder, when it is inside of the app's.
        let state = self.dir.parent().unwrap_or(&self.dir);
        let entries = walk::release_of(source.app_dir, source.include, state)?;
        let of_files = entries.values().filter(|entry| **entry != walk::Entry::Folder).count() as u64;
        if !walk::holds_anything(&entries) {
            return Err(match walk::is_bare(source.app_dir, state)? {
                true => ReleaseError::Empty { folder: source.app_dir.to_owned() },
                false => ReleaseError::AllIgnored,
            });
        }
        let (mut files, mut bytes) = (0, 0);
        let hashed = hash_all(source.app_dir, entries, &mut |size| {
            files += 1;
            bytes += size;
            if files % PROGRESS_FILES == 0 {
                progress(Progress::Reading { files, bytes, of_files });
            }
        })?;
        let digest = of_release(&hashed, source.run, source.release_command);
        let id = ReleaseId::new(&digest[..ID_HEX_DIGITS])
            .map_err(|error| ReleaseError::Io { path: self.dir.clone(), source: io::Error::other(error) })?;
        let outward_links = outward_links(&hashed);
        if let Some(metadata) = self.get(&id)? {
            return Ok(Snapshot { metadata, was_stored: true, outward_links });
        }
        floor.check(&self.dir, bytes).map_err(ReleaseError::io(&self.dir))??;
        let metadata = Metadata {
            id,
            digest,
            created: Timestamp::now(),
            files: of_files,
            bytes,
            run: source.run.to_owned(),
            release_command: source.release_command.map(str::to_owned),
            failed: None,
        };
        let partial = self.dir.join(format!("{}.partial", metadata.id));
        let stored = self.store(source.app_dir, &hashed, &metadata, &partial, progress);
        if stored.is_err() {
            // What cannot be removed now is removed by the next one.
            let _ = fs::remove_dir_all(&partial);
        }
        stored.map(|()| Snapshot { metadata, was_stored: false, outward_links })
    }

    fn store(
        &self,
        app_dir: &Path,
        hashed: &[Hashed],
        metadata: &Metadata,
        partial: &Path,
        progress: &mut dyn FnMut(Progress),
    ) -> Result<(), ReleaseError> {
        let tree = partial.join("tree");
        make_folder(&tree)?;
        let (mut files, mut bytes) = (0, 0);
        for entry in hashed {
            let (from, to) = (app_dir.join(&entry.path), tree.join(&entry.path));
            match &entry.content {
                Content::Folder => {
                    make_folder(&to)?;
                    continue;
                }
                Content::Link(target) => copy_link(&from, target, &to)?,
                Content::File { stamp, .. } => {
                    copy_file(&from, *stamp, &to)?;
                    bytes += stamp.size;
                }
            }
            files += 1;
            if files % PROGRESS_FILES == 0 {
                let (of_files, of_bytes) = (metadata.files, metadata.bytes);
                progress(Progress::Copying { files, bytes, of_files, of_bytes });
            }
        }
        write_entries(partial, hashed)?;
        write_metadata(partial, metadata)?;
        progress(Progress::Syncing);
        let sync = || {
            // One flush of the file system instead of one for each of thousands of files.
            rustix::fs::syncfs(fs::File::open(partial)?)?;
            fs::rename(partial, self.dir.join(metadata.id.as_str()))?;
            fs::File::open(&self.dir)?.sync_all()
        };
        sync().map_err(ReleaseError::io(partial))
    }

    /// Serialises whoever stores and removes; given up by the kernel when its holder dies.
    pub(super) fn lock(&self) -> Result<fs::File, ReleaseError> {
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o711)
            .create(&self.dir)
            .map_err(ReleaseError::io(&self.dir))?;
        let path = self.dir.join(".lock");
        let open = || {
            let file = fs::OpenOptions::new().create(true).truncate(false).write(true).open(&path)?;
            file.lock()?;
            Ok(file)
        };
        open().map_err(ReleaseError::io(&path))
    }

    /// Removes what a crash has left. Only under the lock.
    pub(super) fn clean(&self) -> Result<(), ReleaseError> {
        for entry in fs::read_dir(&self.dir).map_err(ReleaseError::io(&self.dir))? {
            let path = entry.map_err(ReleaseError::io(&self.dir))?.path();
            if path.extension().is_some_and(|extension| extension == "partial" || extension == "removing") {
                fs::remove_dir_all(&path).map_err(ReleaseError::io(&path))?;
            }
        }
        Ok(())
    }
}

/// Folders stay writable for us alone, so that a release can be removed.
fn make_folder(path: &Path) -> Result<(), ReleaseError> {
    let make = || {
        fs::DirBuilder::new().recursive(true).mode(0o755).create(path)?;
        // The umask may have taken bits that the app's user needs.
        fs::set_permissions(path, fs::Permissions::from_mode(0o755))
    };
    make().map_err(ReleaseError::io(path))
}

/// Shares the blocks where the file system can. Keeps the time, by which Python knows its compiled files and browsers
/// their caches, and the owner, so that a secret that only the app's user may read stays one.
fn copy_file(from: &Path, stamp: Stamp, to: &Path) -> Result<(), ReleaseError> {
    let before = fs::symlink_metadata(from).map_err(ReleaseError::io(from))?;
    let copy = || {
        fs::copy(from, to)?;
        let copied = fs::File::open(to)?;
        if running_as_root() {
            fchown(&copied, Some(before.uid()), Some(before.gid()))?;
        }
        copied.set_modified(before.modified()?)?;
        copied.set_permissions(fs::Permissions::from_mode(stamp.mode & 0o555))
    };
    let copied = copy();
    let after = fs::symlink_metadata(from).map(|found| Stamp::of(&found));
    if Stamp::of(&before) != stamp || !after.is_ok_and(|after| after == stamp) {
        return Err(ReleaseError::Changed { path: from.to_owned() });
    }
    copied.map_err(ReleaseError::io(from))
}

fn copy_link(from: &Path, target: &Path, to: &Path) -> Result<(), ReleaseError> {
    let copy = || {
        symlink(target, to)?;
        if running_as_root() {
            let owner = fs::symlink_metadata(from)?;
            lchown(to, Some(owner.uid()), Some(owner.gid()))?;
        }
        Ok(())
    };
    copy().map_err(ReleaseError::io(from))
}

fn write_metadata(partial: &Path, metadata: &Metadata) -> Result<(), ReleaseError> {
    let path = partial.join("metadata.json");
    let write = || {
        let mut file = fs::File::create(&path)?;
        serde_json::to_writer_pretty(&mut file, metadata)?;
        file.write_all(b"\n")
    };
    write().map_err(ReleaseError::io(&path))
}

/// By their words alone: an absolute target is outside, for the release is stored elsewhere.
fn outward_links(hashed: &[Hashed]) -> Vec<PathBuf> {
    let leaves = |entry: &&Hashed| match &entry.content {
        Content::Link(target) => {
            let mut depth = entry.path.components().count() as i64 - 1;
            target.components().any(|component| {
                depth += match component {
                    Component::Normal(_) => 1,
                    Component::ParentDir => -1,
                    Component::CurDir => 0,
                    Component::RootDir | Component::Prefix(_) => return true,
                };
                depth < 0
            })
        }
        _ => false,
    };
    hashed.iter().filter(leaves).map(|entry| entry.path.clone()).collect()
}

/// The paths of a release, each ended by NUL, which no path contains.
fn write_entries(folder: &Path, hashed: &[Hashed]) -> Result<(), ReleaseError> {
    use std::os::unix::ffi::OsStrExt;
    let path = folder.join(ENTRIES);
    let paths = hashed.iter().flat_map(|entry| [entry.path.as_os_str().as_bytes(), b"\0"]);
    fs::write(&path, paths.collect::<Vec<_>>().concat()).map_err(ReleaseError::io(&path))
}
