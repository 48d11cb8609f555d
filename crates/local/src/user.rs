//! System users: whom a process runs as, and whom its folders belong to.
//!
//! Started as root, nothing of the app and no engine should run as root; started by anyone else, everything
//! runs as that one, for nobody else can be become.

use std::ffi::{CStr, CString, OsString};
use std::io;
use std::mem::MaybeUninit;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::ptr;

/// Longest record of one user that is read; a directory service may send long ones.
const MAX_RECORD_BYTES: usize = 1 << 20;

/// Whom a process runs as.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    pub uid: u32,
    pub gid: u32,
    /// Supplementary groups, `gid` among them or not, as the system lists them.
    pub groups: Vec<u32>,
    /// The login name; the number when the user has none, as in many containers.
    pub name: String,
    /// `/` when the user has none.
    pub home: PathBuf,
}

/// Why a user could not be resolved.
#[derive(Debug, thiserror::Error)]
pub enum UserError {
    #[error("there is no user `{name}` on this machine")]
    Unknown { name: String },
    #[error("the user database cannot be read")]
    Database(#[source] io::Error),
    #[error("the owner of {} cannot be found out", path.display())]
    Owner { path: PathBuf, source: io::Error },
}

impl Identity {
    /// # Errors
    /// [`UserError::Unknown`] when nobody has that login name.
    pub fn by_name(name: &str) -> Result<Identity, UserError> {
        let unknown = || UserError::Unknown { name: name.to_owned() };
        let c_name = CString::new(name).map_err(|_| unknown())?;
        // SAFETY: the name is terminated, and the other pointers are what `look_up` passes for the call's
        // length.
        look_up(|record, buffer, length, found| unsafe {
            libc::getpwnam_r(c_name.as_ptr(), record, buffer, length, found)
        })?
        .ok_or_else(unknown)
    }

    /// A uid without a record is somebody too: a number for a name, its own number as its group.
    ///
    /// # Errors
    /// When the user database cannot be read.
    pub fn by_uid(uid: u32) -> Result<Identity, UserError> {
        // SAFETY: the pointers are what `look_up` passes for the call's length.
        let found = look_up(|record, buffer, length, found| unsafe {
            libc::getpwuid_r(uid, record, buffer, length, found)
        })?;
        Ok(found.unwrap_or_else(|| Identity {
            uid,
            gid: uid,
            groups: Vec::new(),
            name: uid.to_string(),
            home: PathBuf::from("/"),
        }))
    }

    /// Whom the file or folder belongs to.
    ///
    /// # Errors
    /// When it is not there, or the user database cannot be read.
    pub fn owner_of(path: &Path) -> Result<Identity, UserError> {
        let owner =
            std::fs::metadata(path).map_err(|source| UserError::Owner { path: path.to_owned(), source })?;
        Identity::by_uid(owner.uid())
    }

    /// Whom we run as.
    ///
    /// # Errors
    /// When the user database cannot be read.
    pub fn current() -> Result<Identity, UserError> {
        Identity::by_uid(rustix::process::geteuid().as_raw())
    }

    pub fn is_root(&self) -> bool {
        self.uid == 0
    }
}

/// Whether we may become other users.
pub fn running_as_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// Gives one file or folder to `owner`; a symbolic link itself, never what it points at.
///
/// # Errors
/// When we are not root, or it is not there.
pub fn give_to(path: &Path, owner: &Identity) -> io::Result<()> {
    std::os::unix::fs::lchown(path, Some(owner.uid), Some(owner.gid))
}

/// Gives a file that root has just made in somebody's folder to them: who runs things with `sudo` in their own folder wants
/// to change and delete what stands there.
///
/// # Errors
/// When whom the folder belongs to cannot be found out, or the file cannot be given away.
pub fn give_to_owner_of(folder: &Path, file: &std::fs::File) -> io::Result<()> {
    let owner = std::fs::metadata(folder)?;
    if running_as_root() && owner.uid() != 0 {
        // The open file: whoever owns the folder may have put another one in its place.
        std::os::unix::fs::fchown(file, Some(owner.uid()), Some(owner.gid()))?;
    }
    Ok(())
}

/// [`give_to`] for a folder and everything in it, following no symbolic link.
///
/// # Errors
/// At the first thing that could not be given.
pub fn give_tree_to(path: &Path, owner: &Identity) -> io::Result<()> {
    if path.symlink_metadata()?.is_dir() {
        for entry in std::fs::read_dir(path)? {
            give_tree_to(&entry?.path(), owner)?;
        }
    }
    give_to(path, owner)
}

fn look_up(
    call: impl Fn(*mut libc::passwd, *mut libc::c_char, usize, *mut *mut libc::passwd) -> libc::c_int,
) -> Result<Option<Identity>, UserError> {
    let mut buffer = vec![0 as libc::c_char; 4096];
    loop {
        let mut record = MaybeUninit::<libc::passwd>::uninit();
        let mut found = ptr::null_mut();
        match call(record.as_mut_ptr(), buffer.as_mut_ptr(), buffer.len(), &mut found) {
            // SAFETY: a result that is not null points at `record`, filled in, its strings in `buffer`.
            0 if !found.is_null() => return Ok(Some(unsafe { identity(&*found) })),
            // Some implementations say "not found" with an error code instead of a null result.
            0 | libc::ENOENT | libc::ESRCH => return Ok(None),
            libc::ERANGE if buffer.len() < MAX_RECORD_BYTES => buffer.resize(buffer.len() * 4, 0),
            libc::EINTR => {}
            code => return Err(UserError::Database(io::Error::from_raw_os_error(code))),
        }
    }
}

/// # Safety
/// The record's strings must be terminated and alive.
unsafe fn identity(record: &libc::passwd) -> Identity {
    // SAFETY: by this function's own contract.
    let (name, home) = unsafe { (CStr::from_ptr(record.pw_name), CStr::from_ptr(record.pw_dir)) };
    let home = OsString::from_vec(home.to_bytes().to_vec());
    Identity {
        uid: record.pw_uid,
        gid: record.pw_gid,
        groups: groups(name, record.pw_gid),
        name: name.to_string_lossy().into_owned(),
        home: if home.as_bytes().is_empty() { PathBuf::from("/") } else { PathBuf::from(home) },
    }
}

fn groups(name: &CStr, gid: u32) -> Vec<u32> {
    let mut groups = vec![0; 64];
    loop {
        let mut count = libc::c_int::try_from(groups.len()).unwrap_or(libc::c_int::MAX);
        // SAFETY: `groups` has room for `count` numbers.
        let listed = unsafe { libc::getgrouplist(name.as_ptr(), gid, groups.as_mut_ptr(), &mut count) };
        let count = usize::try_from(count).unwrap_or(0);
        if listed >= 0 {
            groups.truncate(count);
            return groups;
        }
        // The kernel takes no more than 65,536 groups either.
        if groups.len() > 65_536 {
            return vec![gid];
        }
        groups.resize(count.max(groups.len() * 2), 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn root_is_found_by_name_and_by_number() {
        let root = Identity::by_name("root").unwrap();
        assert!(root.is_root());
        assert_eq!(Identity::by_uid(0).unwrap(), root);
        assert!(root.groups.contains(&root.gid));
    }

    #[test]
    fn a_user_that_does_not_exist_is_named_in_the_error() {
        let error = Identity::by_name("no-such-user-here").unwrap_err();
        assert_eq!(error.to_string(), "there is no user `no-such-user-here` on this machine");
    }

    #[test]
    fn a_number_without_a_record_is_somebody_too() {
        let nobody = Identity::by_uid(3_999_999).unwrap();
        assert_eq!((nobody.uid, nobody.name.as_str()), (3_999_999, "3999999"));
    }

    #[test]
    fn a_folder_is_given_away_with_what_is_in_it_but_not_what_it_links_to() {
        if !running_as_root() {
            eprintln!("skipped: only root may give files away");
            return;
        }
        let (ours, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        std::fs::create_dir(ours.path().join("sub")).unwrap();
        std::os::unix::fs::symlink(other.path(), ours.path().join("sub/link")).unwrap();
        let somebody = Identity::by_uid(3_999_999).unwrap();
        give_tree_to(ours.path(), &somebody).unwrap();
        assert_eq!(Identity::owner_of(&ours.path().join("sub")).unwrap(), somebody);
        assert!(Identity::owner_of(other.path()).unwrap().is_root());
    }
}
