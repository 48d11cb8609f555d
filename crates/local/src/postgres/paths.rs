//! Where one node lives.

use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use super::PostgresError;

/// `sun_path` holds 108 bytes with its final NUL (unix(7)).
const SOCKET_PATH_MAX: usize = 107;

/// The folders of one node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodePaths {
    root: PathBuf,
    socket_dir: PathBuf,
    port: u16,
}

impl NodePaths {
    /// `root` is the node's own folder. `socket_dir` takes the Unix socket that `port` names; nodes may share it.
    ///
    /// # Errors
    /// When the socket's path would be longer than the system allows.
    pub fn new(root: &Path, socket_dir: &Path, port: u16) -> Result<NodePaths, PostgresError> {
        let paths = NodePaths { root: root.to_owned(), socket_dir: socket_dir.to_owned(), port };
        // PostgreSQL also makes `<socket>.lock`, but binds only the socket itself.
        if paths.socket().as_os_str().len() > SOCKET_PATH_MAX {
            return Err(PostgresError::SocketPathTooLong { path: paths.socket() });
        }
        Ok(paths)
    }

    pub fn root(&self) -> &Path {
        &self.root
    }

    /// PostgreSQL's data directory.
    pub fn pgdata(&self) -> PathBuf {
        self.root.join("pgdata")
    }

    /// A data directory that is being made.
    pub(super) fn partial(&self) -> PathBuf {
        self.root.join("pgdata.partial")
    }

    /// Settings, outside of the data directory.
    pub fn conf(&self) -> PathBuf {
        self.root.join("conf")
    }

    /// The superuser's password, for PostgreSQL's own programs when they follow or copy another node.
    pub(super) fn passfile(&self) -> PathBuf {
        self.root.join("pgpass")
    }

    /// In the data directory of every node that follows another, and of no primary (PostgreSQL removes it when it
    /// promotes). So a follower without it was a primary before, and must be rewound before it follows.
    pub fn standby_signal(&self) -> PathBuf {
        self.pgdata().join("standby.signal")
    }

    pub fn socket_dir(&self) -> &Path {
        &self.socket_dir
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    /// What clients on this machine connect to.
    pub fn socket(&self) -> PathBuf {
        self.socket_dir.join(format!(".s.PGSQL.{}", self.port))
    }

    pub(super) fn socket_lock(&self) -> PathBuf {
        self.socket_dir.join(format!(".s.PGSQL.{}.lock", self.port))
    }

    /// The number that PostgreSQL gave to the cluster when it was made, and that all copies of it share. The first field of
    /// its control file (`ControlFileData`), in this machine's byte order.
    ///
    /// # Errors
    /// When there is no cluster, or it cannot be read.
    pub fn system_identifier(&self) -> io::Result<u64> {
        let mut bytes = [0; 8];
        fs::File::open(self.control_file())?.read_exact(&mut bytes)?;
        Ok(u64::from_ne_bytes(bytes))
    }

    pub(crate) fn control_file(&self) -> PathBuf {
        self.pgdata().join("global/pg_control")
    }

    /// Whether there is a cluster; not whether it is whole.
    pub fn has_cluster(&self) -> bool {
        self.pgdata().join("PG_VERSION").exists()
    }
}
