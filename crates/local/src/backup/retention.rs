//! What may go. A decision of values; [`super::Catalog`] and [`super::Archive`] carry it out.

use std::collections::BTreeSet;

use super::{BaseBackup, WalName};

/// What is to be deleted, copies by their number.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Excess {
    pub copies: Vec<u32>,
    pub log: Vec<WalName>,
}

/// Keeps the newest `keep` copies, the newest proven one wherever it stands, and the log that any of these needs. Where none
/// is proven, the newest that was not found to be of no use stands for it: those after it may all be. Positions go back when
/// an earlier state is restored, so it is the lowest that counts, not that of the oldest copy.
///
/// Without a single copy nothing is deleted: what the log leads from may be kept elsewhere.
pub fn excess(backups: &[BaseBackup], keep: usize, names: &[WalName]) -> Excess {
    let mut newest_first: Vec<&BaseBackup> = backups.iter().collect();
    newest_first.sort_by_key(|backup| std::cmp::Reverse(backup.number));
    let proven = newest_first.iter().find(|backup| backup.is_proven());
    let relied_on = proven.or_else(|| newest_first.iter().find(|backup| backup.refuted.is_none()));
    let kept: BTreeSet<u32> =
        newest_first.iter().take(keep.max(1)).chain(relied_on).map(|backup| backup.number).collect();
    let (stay, go): (Vec<&BaseBackup>, Vec<&BaseBackup>) =
        backups.iter().partition(|backup| kept.contains(&backup.number));
    let Some(needed) = stay.iter().map(|backup| WalName::number_at(backup.start)).min() else {
        return Excess::default();
    };
    let old = |name: &&WalName| name.number().is_some_and(|number| number < needed);
    Excess {
        copies: go.iter().map(|backup| backup.number).collect(),
        log: names.iter().filter(old).copied().collect(),
    }
}
