//! A node's place in its cluster, as its configuration says it.

use std::path::PathBuf;

use model::{NodeId, ResourceId};

/// What [`super::write_config`] needs to know of the other nodes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Membership {
    /// See [`member_name`].
    pub name: String,
    pub place: Place,
    /// The folder that holds backups; each cluster has its own in it. `None`: none are made.
    pub backups: Option<PathBuf>,
    /// Its log stays on it: whether it will ever be the cluster's is not settled.
    pub keeps_log: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// Takes writes. Each commit waits for one of these members; for nobody where there are none.
    Primary { confirmed_by: Vec<String> },
    /// Follows the node whose socket this port names, in the same folder.
    Follower { primary_port: u16 },
}

impl Membership {
    /// A node that nobody follows.
    pub fn alone(id: &NodeId) -> Membership {
        Membership {
            name: member_name(id),
            place: Place::Primary { confirmed_by: Vec::new() },
            backups: None,
            keeps_log: false,
        }
    }
}

/// What a node is called among the others, as `application_name` and as the name of its replication slot: `db_2`. Slots
/// take lower-case letters, digits and `_` only.
pub fn member_name(id: &NodeId) -> String {
    plain(&id.to_string())
}

/// `synchronous_standby_names`, where each commit waits for one of these.
pub(super) fn standby_names(confirmed_by: &[String]) -> String {
    let names: Vec<String> = confirmed_by.iter().map(|name| format!("\"{name}\"")).collect();
    if names.is_empty() { String::new() } else { format!("ANY 1 ({})", names.join(", ")) }
}

/// Whether a node of this cluster could be called so.
pub(super) fn is_member_name(of: &ResourceId, name: &str) -> bool {
    let number = name.strip_prefix(&plain(of.as_str())).and_then(|rest| rest.strip_prefix('_'));
    number.is_some_and(|number| !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit()))
}

fn plain(name: &str) -> String {
    let plain = |c: char| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '_' };
    name.chars().map(plain).collect()
}
