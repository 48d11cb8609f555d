//! `restore`: a new primary from a backup in the place of the old one, and then its followers anew.

use std::path::Path;
use std::time::Instant;

use local::machine::{Event, Report};
use model::{RecoveryTarget, ResourceId};

use super::Daemon;
use super::operations::{apply_failed, step_failed, step_refused};
use crate::api::{Failure, Restored};

impl Daemon {
    pub(super) async fn restore(
        &self,
        cluster: &ResourceId,
        to: RecoveryTarget,
        from: Option<&Path>,
        report: &Report,
    ) -> Result<Restored, Failure> {
        let began = Instant::now();
        let machine = &self.machine;
        let _no_other = machine.hold_backups().await.map_err(step_failed)?;
        let wished = machine.choose_restore(cluster, to, from, report).await.map_err(step_refused)?;
        let world = machine.world();
        let gone = || step_refused(machine.no_such_database(cluster));
        let kept_aside = world.topology.primary_of(cluster).map(|node| node.id.clone()).ok_or_else(gone)?;
        let followers = machine.followers(cluster);
        let app = &machine.setup().app;
        let plan = plan::restore(app, &world.topology, world.generation, &wished).ok_or_else(gone)?;
        machine.apply(plan, report).await.map_err(|error| apply_failed(&error))?;

        let mut notes =
            vec![format!("what {kept_aside} had is kept aside until `switchback restore --forget-replaced`")];
        let world = machine.world();
        let again = plan::follow_again(app, &world.topology, world.generation, cluster, &followers);
        if let Some(plan) = again
            && let Err(error) = machine.apply(plan, report).await
        {
            notes.push(format!("its followers are not back yet: {error}; `switchback up` adds them"));
        }
        if world.topology.releases.values().any(|release| release.release_command.is_some()) {
            let text =
                "the database may be older than the last release command; `switchback deploy` runs it again";
            notes.push(text.to_owned());
        }
        notes.iter().for_each(|text| report(Event::Note { text: text.clone() }));
        let primary = world.topology.primary_of(cluster).map(|node| node.id.clone()).ok_or_else(gone)?;
        let took_ms = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
        Ok(Restored { backup: wished.backup, primary, kept_aside, took_ms, notes })
    }
}
