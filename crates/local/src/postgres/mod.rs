//! One PostgreSQL node, as a set of operations: make it, configure it, say how it is started, wait for it, give it the
//! app's role and database; let it follow another node, and take over from it.
//!
//! What is promised:
//!
//! - **Data is never overwritten.** A cluster is made beside its place and moved there when it is complete; one that
//!   exists is never touched, whatever is wrong with it.
//! - **A password never stands** in an argument, an environment, a log or a catalog: the superuser's passes through a
//!   file that lives for the length of `initdb`, the app's reaches the server as a SCRAM verifier.
//! - **A lock file left by a crash is no obstacle, and a living server never loses its own**: it is removed only when no
//!   process at all works in that data directory, and PostgreSQL would stumble over it.
//!
//! PostgreSQL is started directly, without `pg_ctl`, so that the supervisor is its parent. Its settings stand outside of
//! the data directory ([`NodePaths::conf`]), where no base backup or rewind can replace them. This module starts
//! nothing that lives on: see [`command_line`] for what the supervisor starts.

mod archiving;
mod base_backup;
mod command;
mod config;
mod contents;
mod control_file;
mod credentials;
mod error;
mod follow;
mod in_force;
mod init;
mod lock_file;
mod membership;
mod owner;
mod paths;
mod provision;
mod ready;
mod recover;
mod session;
mod settings;
mod shutdown;
mod silent;
mod tool;

pub use archiving::Archiving;
pub use base_backup::{base_backup, end_backup_work_in, unpack};
pub use command::{Launch, RELOAD_SIGNAL, Stop, command_line, reload};
pub use config::{admit_supervisor, write_config};
pub use contents::{Contents, all_contents, contents_at_rest};
pub use control_file::ControlFile;
pub use credentials::{Credentials, CredentialsError, Login, database_url};
pub use error::{PostgresError, diagnose};
pub use follow::{Followed, Need, follow, said_of_following};
pub use in_force::prove_in_force;
pub use init::{InitProgress, InitReport, init, take_up};
pub use lock_file::{ServerProcess, clear_stale_lock, killed_in_kernel, processes_in};
use membership::standby_names;
pub use membership::{Membership, Place, member_name};
pub use owner::{Owner, choose_owner};
pub use paths::NodePaths;
pub use provision::{Provisioned, provision, take_in};
pub use ready::{Readiness, probe, wait_ready};
pub use recover::{Replay, mark_for_recovery, recovery_command};
use session::Checkpointer;
pub use session::{Activity, Archiver, Follower, Log, Position, Progress, Session, warm_up};
pub use settings::{Change, Settings, memory_settings};
pub use shutdown::shut_down_at;
pub use silent::is_silent;

#[cfg(test)]
mod tests;
