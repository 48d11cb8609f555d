//! Where everything of one app lives: the state folder, by default `.switchback/` beside the manifest.
//!
//! ```text
//! VERSION        format of this folder; a newer one is refused, never guessed at
//! .gitignore     keeps all of it out of git, whenever the app's folder becomes a repository
//! daemon.lock    held by the one daemon
//! state.redb     topology and journal
//! run/           sockets and pid files (0700)
//! sockets/       PostgreSQL's Unix sockets
//! credentials/   generated passwords (0700, files 0600)
//! tls/           the local CA and its certificates (0700)
//! data/          what must never be lost
//! backups/       of the databases, where the manifest names no other folder
//! releases/      immutable trees
//! rehearsals/    reports of rehearsals, and what the app was found to serve
//! journey/       a state folder of its own, while a journey is under way
//! journey.lock   held by the one journey
//! logs/          current/ as children write, store/ as people read, access.log, daemon.log
//! ```

use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use model::{NodeId, ResourceId};

/// The format this version reads and writes.
pub const FORMAT: u32 = 2;

/// What [`StateDir::remove`] deletes.
const FOLDERS: [&str; 9] =
    ["data", "backups", "releases", "rehearsals", "credentials", "tls", "logs", "run", "sockets"];
/// The format last: without it the rest would be taken for something else's.
const FILES: [&str; 4] = ["state.redb", "journey.lock", "daemon.lock", "VERSION"];

/// In a `.gitignore`: everything below it, itself as well.
const IGNORE_ALL: &str = "*\n";

/// `sun_path` holds 108 bytes with its final NUL (unix(7)).
const SOCKET_PATH_MAX: usize = 107;
/// Room for the longest file name put into a socket folder.
const SOCKET_NAME_MAX: usize = 48;

/// How long the lock may outlive a daemon that was killed.
const DYING: Duration = Duration::from_secs(1);

#[derive(Debug, thiserror::Error)]
pub enum StateError {
    #[error("{path}: the state folder has format {found}, and this version knows up to {FORMAT}")]
    Newer { path: PathBuf, found: u32 },
    #[error(
        "{path}: the state folder has format {found}, from before the first release, and this version knows {FORMAT}"
    )]
    Older { path: PathBuf, found: u32 },
    #[error("{path}: not a format number; the state folder is damaged or belongs to something else")]
    Unreadable { path: PathBuf },
    #[error("{path} belongs to another user")]
    Foreign { path: PathBuf },
    #[error("another daemon (pid {pid}) holds {path}")]
    Held { path: PathBuf, pid: String },
    #[error("a journey of this app is under way (pid {pid})")]
    Journey { pid: String },
    #[error("{path}")]
    Io {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
}

impl StateError {
    fn io(path: &Path) -> impl FnOnce(io::Error) -> StateError {
        let path = path.to_owned();
        move |source| StateError::Io { path, source }
    }

    /// What to do about it.
    pub fn hint(&self) -> &'static str {
        match self {
            StateError::Newer { .. } => "use the newer switchback that wrote it, or another --state-dir",
            StateError::Older { .. } => {
                "bring the app down with the switchback that wrote it, move the folder away and bring it up anew; \
                 pg_dump carries the data over"
            }
            StateError::Unreadable { .. } => "move the folder away, or name another with --state-dir",
            StateError::Foreign { .. } => "run as its owner, or name another folder with --state-dir",
            StateError::Held { .. } => "`switchback status` shows it; `switchback down` stops it",
            StateError::Journey { .. } => "wait for it to end; Ctrl-C where it was begun ends it, too",
            StateError::Io { .. } => "see that the disk is not full and that the folder is yours to write",
        }
    }
}

/// The state folder of one app. Cheap to clone; only [`StateDir::open`] touches the disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StateDir {
    root: PathBuf,
    /// Where sockets go: inside the folder, or in the temporary folder when its path is too long for one.
    sockets: PathBuf,
}

impl StateDir {
    /// Names the folder without touching it.
    pub fn at(root: &Path) -> StateDir {
        let user = rustix::process::geteuid().as_raw();
        StateDir { root: root.to_owned(), sockets: folder_of_sockets(root, user) }
    }

    /// Makes what is missing and checks the format.
    ///
    /// # Errors
    /// When the folder is of a newer format, is damaged, or cannot be written.
    pub fn open(root: &Path) -> Result<StateDir, StateError> {
        let state = StateDir::at(root);
        // 0711: the app and PostgreSQL run as other users when the daemon is root and must reach their own folders.
        make(&state.root, 0o711)?;
        state.check_format()?;
        if state.sockets != state.root {
            make(&state.sockets, 0o711)?;
            // Its name can be guessed: whoever made it first would own our sockets.
            must_be_ours(&state.sockets)?;
        }
        for (path, mode) in [
            (state.run(), 0o700),
            (state.control_sockets(), 0o700),
            (state.credentials(), 0o700),
            (state.tls(), 0o700),
            (state.sockets(), 0o711),
            (state.root.join("data"), 0o711),
            (state.nodes(), 0o711),
            (state.releases(), 0o711),
            // Requests and what the app says are nobody else's business; children get their files opened.
            (state.logs(), 0o700),
        ] {
            make(&path, mode)?;
        }
        Ok(state)
    }

    fn check_format(&self) -> Result<(), StateError> {
        let path = self.root.join("VERSION");
        match fs::read_to_string(&path) {
            Ok(text) => match text.trim().parse::<u32>() {
                Ok(found) if found > FORMAT => Err(StateError::Newer { path, found }),
                Ok(found) if found < FORMAT => Err(StateError::Older { path, found }),
                Ok(_) => {
                    // A disk that is full keeps nobody from what is there.
                    let _ = self.keep_out_of_git();
                    Ok(())
                }
                // Half written: a crash between create and write leaves it empty. Nothing that counts was made before it.
                Err(_) if text.trim().is_empty() && !self.database().exists() => self.begin(&path),
                Err(_) => Err(StateError::Unreadable { path }),
            },
            Err(error) if error.kind() == io::ErrorKind::NotFound => self.begin(&path),
            Err(error) => Err(StateError::io(&path)(error)),
        }
    }

    /// What a new folder has before anything else.
    fn begin(&self, version: &Path) -> Result<(), StateError> {
        self.keep_out_of_git()?;
        fs::write(version, format!("{FORMAT}\n")).map_err(StateError::io(version))
    }

    /// The folder holds credentials and data, which must never be committed by accident, so it says itself that git is to
    /// ignore it. A folder that has something else in it is not ours alone.
    fn keep_out_of_git(&self) -> Result<(), StateError> {
        let path = self.git_ignore();
        // Empty: the disk was full.
        if fs::read(&path).is_ok_and(|text| !text.is_empty()) {
            return Ok(());
        }
        let found = fs::read_dir(&self.root).map_err(StateError::io(&self.root))?;
        let all_ours = [&FOLDERS[..], &FILES, &["journey", ".gitignore"]].concat();
        let is_ours = |entry: fs::DirEntry| all_ours.iter().any(|ours| entry.file_name() == *ours);
        if found.flatten().all(is_ours) {
            fs::write(&path, IGNORE_ALL).map_err(StateError::io(&path))?;
        }
        Ok(())
    }

    /// Takes the lock that only one daemon can hold, until the file is dropped or the process ends.
    ///
    /// # Errors
    /// [`StateError::Held`] when another process has it.
    pub fn lock(&self) -> Result<fs::File, StateError> {
        let file = self.hold()?;
        // Whose daemon it is stands in its owner; one of root may follow one of somebody else.
        let us = rustix::process::geteuid().as_raw();
        if us == 0 && file.metadata().is_ok_and(|metadata| metadata.uid() != us) {
            std::os::unix::fs::fchown(&file, Some(us), None).map_err(StateError::io(&self.lock_file()))?;
        }
        sign(file, &self.lock_file())
    }

    /// [`StateDir::lock`] without a word in it: for who looks into the folder for a moment, while no daemon runs.
    ///
    /// # Errors
    /// As [`StateDir::lock`].
    pub fn hold(&self) -> Result<fs::File, StateError> {
        let path = self.lock_file();
        held(&path, DYING)?.map_err(|pid| StateError::Held { path, pid })
    }

    /// Whether a daemon has the folder: one that answers, or one that has just begun or is about to end. Anybody who can
    /// reach the folder may ask.
    pub fn is_held(&self) -> bool {
        is_locked(&self.lock_file())
    }

    /// Takes the lock that only one journey can hold, until the file is dropped or the process ends, however it does. One
    /// that is about to end is waited for.
    ///
    /// # Errors
    /// [`StateError::Journey`] when another process has it for longer.
    pub fn lock_journey(&self, patience: Duration) -> Result<fs::File, StateError> {
        let path = self.journey_lock();
        let file = held(&path, patience.max(DYING))?.map_err(|pid| StateError::Journey { pid })?;
        sign(file, &path)
    }

    /// Whether a journey is under way.
    pub fn journey_is_under_way(&self) -> bool {
        is_locked(&self.journey_lock())
    }

    fn journey_lock(&self) -> PathBuf {
        self.root.join("journey.lock")
    }

    /// Whose daemon has, or had, the folder. `None` before the first.
    pub fn daemon_user(&self) -> Option<u32> {
        Some(fs::metadata(self.lock_file()).ok()?.uid())
    }

    fn lock_file(&self) -> PathBuf {
        self.root.join("daemon.lock")
    }

    /// Deletes all of Switchback's that stands in the folder, and the folder where nothing else does. Only when nothing
    /// runs any more.
    ///
    /// # Errors
    /// When something cannot be deleted.
    pub fn remove(&self) -> io::Result<()> {
        let gone = |result: io::Result<()>| match result {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            result => result,
        };
        for folder in FOLDERS {
            gone(fs::remove_dir_all(self.root.join(folder)))?;
        }
        if self.sockets != self.root {
            gone(fs::remove_dir_all(&self.sockets))?;
        }
        if fs::read_to_string(self.git_ignore()).is_ok_and(|text| text == IGNORE_ALL || text.is_empty()) {
            gone(fs::remove_file(self.git_ignore()))?;
        }
        for file in FILES {
            gone(fs::remove_file(self.root.join(file)))?;
        }
        match fs::remove_dir(&self.root) {
            Err(error) if error.kind() == io::ErrorKind::DirectoryNotEmpty => Ok(()),
            result => gone(result),
        }
    }

    fn git_ignore(&self) -> PathBuf {
        self.root.join(".gitignore")
    }

    pub fn root(&self) -> &Path {
        &self.root
    }

    pub fn database(&self) -> PathBuf {
        self.root.join("state.redb")
    }

    /// Pid files and the configurations of roles.
    pub fn run(&self) -> PathBuf {
        self.root.join("run")
    }

    /// The same folder, but where its path is too long for sockets.
    fn control_sockets(&self) -> PathBuf {
        self.sockets.join("run")
    }

    /// PostgreSQL's sockets, reachable by the user it runs as.
    pub fn sockets(&self) -> PathBuf {
        self.sockets.join("sockets")
    }

    pub fn daemon_socket(&self) -> PathBuf {
        self.control_sockets().join("daemon.sock")
    }

    /// Where the daemon of root lets the owner of the app's folder look. In the folder that others may pass through.
    pub fn looking_socket(&self) -> PathBuf {
        let user = self.daemon_user().unwrap_or_else(|| rustix::process::geteuid().as_raw());
        folder_of_sockets(&self.root, user).join("sockets/look.sock")
    }

    pub fn control_socket(&self, process: &str) -> PathBuf {
        self.control_sockets().join(format!("{process}.sock"))
    }

    /// Where the proxies of a database meet, the one that serves and those that were replaced.
    pub fn cancels(&self, database: &ResourceId) -> PathBuf {
        self.control_sockets().join(format!("{database}.cancel"))
    }

    pub fn role_config(&self, process: &str) -> PathBuf {
        self.run().join(format!("{process}.json"))
    }

    /// What the proxy of a database and the edges share (see the crate `freshness`).
    pub fn marks(&self, database: &ResourceId) -> PathBuf {
        self.run().join(format!("{database}.marks"))
    }

    pub fn credentials(&self) -> PathBuf {
        self.root.join("credentials")
    }

    pub fn database_credentials(&self, cluster: &ResourceId) -> PathBuf {
        self.credentials().join(format!("{cluster}.json"))
    }

    pub fn tls(&self) -> PathBuf {
        self.root.join("tls")
    }

    pub fn nodes(&self) -> PathBuf {
        self.root.join("data/postgres")
    }

    pub fn node(&self, node: &NodeId) -> PathBuf {
        self.nodes().join(node.to_string())
    }

    /// Where a data directory goes that a plan was rolled back from.
    pub fn retired(&self) -> PathBuf {
        self.root.join("data/retired")
    }

    /// Nodes that are made from a backup and do not serve yet, or only prove that it is whole.
    pub fn restored(&self) -> PathBuf {
        self.root.join("data/restored")
    }

    /// The data of primaries that a restore has put another in the place of, until it is said that nobody needs it.
    pub fn replaced(&self) -> PathBuf {
        self.root.join("data/replaced")
    }

    /// The nodes of a cluster whose data is there.
    pub fn replaced_of(&self, cluster: &ResourceId) -> Vec<NodeId> {
        let entries = fs::read_dir(self.replaced()).into_iter().flatten().flatten();
        let nodes = entries.filter_map(|entry| entry.file_name().to_string_lossy().parse::<NodeId>().ok());
        nodes.filter(|node| node.resource() == cluster).collect()
    }

    /// Where backups go when the manifest names no other folder.
    pub fn backups(&self) -> PathBuf {
        self.root.join("backups")
    }

    pub fn releases(&self) -> PathBuf {
        self.root.join("releases")
    }

    pub fn rehearsals(&self) -> PathBuf {
        self.root.join("rehearsals")
    }

    /// The state folder of a journey's copy of the app.
    pub fn journey(&self) -> PathBuf {
        self.root.join("journey")
    }

    pub fn logs(&self) -> PathBuf {
        self.root.join("logs")
    }

    pub fn access_log(&self) -> PathBuf {
        self.logs().join("access.log")
    }

    pub fn daemon_log(&self) -> PathBuf {
        self.logs().join("daemon.log")
    }

    /// Distinguishes this folder from every other one on the machine, in the names of what is shared (cgroups).
    pub fn tag(&self) -> String {
        format!("{:08x}", hash(self.root.as_os_str().as_encoded_bytes()) as u32)
    }
}

/// Locks a file that is made where it is missing. The other: what its holder has written into it.
fn held(path: &Path, patience: Duration) -> Result<Result<fs::File, String>, StateError> {
    use std::io::Read;
    let mut file = fs::OpenOptions::new()
        .create(true)
        .truncate(false)
        .read(true)
        .write(true)
        .mode(0o644)
        .open(path)
        .map_err(StateError::io(path))?;
    let begun = Instant::now();
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(Ok(file)),
            // The threads of a killed process end one by one, and the last of them lets go.
            Err(fs::TryLockError::WouldBlock) if begun.elapsed() < patience => {
                std::thread::sleep(DYING / 100)
            }
            Err(fs::TryLockError::WouldBlock) => {
                let mut pid = String::new();
                let _ = file.read_to_string(&mut pid);
                return Ok(Err(pid.trim().to_owned()));
            }
            Err(fs::TryLockError::Error(error)) => return Err(StateError::io(path)(error)),
        }
    }
}

/// Writes this process's number into a file that it has locked.
fn sign(mut file: fs::File, path: &Path) -> Result<fs::File, StateError> {
    use std::io::Write;
    // Over what stands there, and only then cut: that needs no new block on a full disk.
    let pid = std::process::id().to_string();
    file.write_all(pid.as_bytes())
        .and_then(|()| file.set_len(pid.len() as u64))
        .map_err(StateError::io(path))?;
    Ok(file)
}

fn is_locked(path: &Path) -> bool {
    let Ok(file) = fs::File::open(path) else { return false };
    // Had for an instant where nobody has it: whoever locks it then waits for longer.
    matches!(file.try_lock_shared(), Err(fs::TryLockError::WouldBlock))
}

fn make(path: &Path, mode: u32) -> Result<(), StateError> {
    let made = fs::DirBuilder::new().recursive(true).mode(mode).create(path);
    made.map_err(StateError::io(path))?;
    // The umask may have taken bits that others need.
    let metadata = fs::symlink_metadata(path).map_err(StateError::io(path))?;
    if !metadata.is_dir() {
        return Err(StateError::Unreadable { path: path.to_owned() });
    }
    let mine = metadata.uid() == rustix::process::geteuid().as_raw();
    if mine && metadata.mode() & 0o777 != mode {
        let permissions = std::os::unix::fs::PermissionsExt::from_mode(mode);
        fs::set_permissions(path, permissions).map_err(StateError::io(path))?;
    }
    Ok(())
}

fn must_be_ours(path: &Path) -> Result<(), StateError> {
    let metadata = fs::symlink_metadata(path).map_err(StateError::io(path))?;
    if metadata.uid() == rustix::process::geteuid().as_raw() {
        return Ok(());
    }
    Err(StateError::Foreign { path: path.to_owned() })
}

/// Of the daemon that runs as `user`.
fn folder_of_sockets(root: &Path, user: u32) -> PathBuf {
    let longest = root.as_os_str().len() + "/sockets/".len() + SOCKET_NAME_MAX;
    if longest <= SOCKET_PATH_MAX {
        return root.to_owned();
    }
    PathBuf::from(format!("/tmp/switchback-{user}-{:016x}", hash(root.as_os_str().as_encoded_bytes())))
}

/// FNV-1a, 64 bits.
fn hash(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_of_a_newer_format_is_refused_and_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("VERSION"), "99\n").unwrap();
        assert!(matches!(StateDir::open(dir.path()), Err(StateError::Newer { found: 99, .. })));
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_folder_half_made_by_a_crash_is_finished() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("VERSION"), "").unwrap();
        StateDir::open(dir.path()).unwrap();
        assert_eq!(fs::read_to_string(dir.path().join("VERSION")).unwrap(), format!("{FORMAT}\n"));
    }

    #[test]
    fn a_new_folder_is_out_of_git_and_nothing_of_it_is_left_behind() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join(".switchback");
        fs::create_dir_all(StateDir::at(&root).rehearsals()).unwrap();
        let state = StateDir::open(&root).unwrap();
        assert_eq!(fs::read_to_string(root.join(".gitignore")).unwrap(), "*\n");
        state.remove().unwrap();
        assert!(!root.exists());
    }

    #[test]
    fn a_folder_of_before_and_one_whose_disk_was_full_are_out_of_git_when_they_are_opened_again() {
        let dir = tempfile::tempdir().unwrap();
        StateDir::open(dir.path()).unwrap();
        let ignore = dir.path().join(".gitignore");
        fs::remove_file(&ignore).unwrap();
        for _ in 0..2 {
            StateDir::open(dir.path()).unwrap();
            assert_eq!(fs::read_to_string(&ignore).unwrap(), "*\n");
            fs::write(&ignore, "").unwrap();
        }
    }

    #[test]
    fn a_folder_that_holds_something_else_keeps_what_git_is_told_there() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join(".gitignore"), "*.log\n").unwrap();
        let state = StateDir::open(dir.path()).unwrap();
        state.remove().unwrap();
        assert_eq!(fs::read_to_string(dir.path().join(".gitignore")).unwrap(), "*.log\n");
    }

    #[test]
    fn a_second_daemon_is_told_who_holds_the_folder() {
        let dir = tempfile::tempdir().unwrap();
        let state = StateDir::open(dir.path()).unwrap();
        let _held = state.lock().unwrap();
        let refused = state.lock().unwrap_err();
        assert!(matches!(refused, StateError::Held { pid, .. } if pid == std::process::id().to_string()));
    }

    #[test]
    fn whether_a_daemon_has_the_folder_can_be_asked_without_taking_it() {
        let dir = tempfile::tempdir().unwrap();
        let state = StateDir::open(dir.path()).unwrap();
        assert!(!state.is_held());
        let held = state.lock().unwrap();
        assert!(state.is_held());
        drop(held);
        assert!(!state.is_held());
        state.lock().unwrap();
    }

    #[test]
    fn a_second_journey_is_told_which_is_under_way_and_waits_for_one_that_ends() {
        let dir = tempfile::tempdir().unwrap();
        let state = StateDir::open(dir.path()).unwrap();
        let first = state.lock_journey(Duration::ZERO).unwrap();
        assert!(state.journey_is_under_way() && !state.is_held());
        let refused = state.lock_journey(Duration::ZERO).unwrap_err();
        assert!(matches!(refused, StateError::Journey { pid } if pid == std::process::id().to_string()));
        let second = std::thread::scope(|scope| {
            let waiting = scope.spawn(|| state.lock_journey(Duration::from_secs(20)));
            drop(first);
            waiting.join().unwrap()
        });
        assert!(state.journey_is_under_way());
        drop(second.unwrap());
        assert!(!state.journey_is_under_way());
    }

    #[test]
    fn sockets_of_a_deep_folder_still_fit_their_limit() {
        let deep = PathBuf::from("/srv").join("a".repeat(200));
        let socket = StateDir::at(&deep).control_socket("edge.1000");
        assert!(socket.as_os_str().len() <= SOCKET_PATH_MAX, "{}", socket.display());
    }
}
