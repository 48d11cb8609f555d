//! Taking processors away from a tier for some seconds, and giving them back: how a rehearsal proves what gave way.
//!
//! Only control groups can do it, and only downwards. The limit that was there comes back when the time is over, when whoever
//! waits for it is cancelled, and, where the daemon dies meanwhile, when the next one takes over ([`Machine::adopt`]).

use std::collections::BTreeMap;
use std::time::Duration;

use model::{Cpu, Size};

use super::{Machine, StepError};
use crate::cgroup::Group;
use crate::process::Process;

/// An intervention is over at the latest after this.
pub const LONGEST_INTERVENTION: Duration = Duration::from_secs(20);

/// A limit that comes back when this is dropped.
struct Lowered {
    group: Group,
    before: Option<u32>,
}

impl Drop for Lowered {
    fn drop(&mut self) {
        if let Err(error) = self.group.apply_cpu(self.before) {
            // The process has ended, and its group with it.
            tracing::warn!(
                group = self.group.name(),
                error = crate::chain(&error),
                "a limit of CPU could not be given back"
            );
        }
    }
}

impl Machine {
    /// Lets each of these processes use no more than so many thousandths of a core, for `lasts`.
    ///
    /// Cancel safe: then it is over.
    ///
    /// # Errors
    /// When there are no control groups, a process is not there, or it would get more than it has. Nothing is changed then.
    pub async fn intervene(&self, millis: &BTreeMap<String, u32>, lasts: Duration) -> Result<(), StepError> {
        let lowered = self.lower(millis)?;
        tokio::time::sleep(lasts.min(LONGEST_INTERVENTION)).await;
        drop(lowered);
        Ok(())
    }

    fn lower(&self, millis: &BTreeMap<String, u32>) -> Result<Vec<Lowered>, StepError> {
        let names: BTreeMap<String, String> = self.kept_processes().into_iter().collect();
        let mut lowered = Vec::new();
        for (name, to) in millis {
            let process = names.get(name).and_then(|process| self.inner.setup.processes.find(process));
            let process = process.ok_or_else(|| StepError::new(format!("{name} does not run")))?;
            let group = process.group().cloned().ok_or_else(|| {
                StepError::new(format!("{name} has no control group, so its processors cannot be limited"))
            })?;
            let before = group.cpu_limit();
            let to = Cpu::from_millis(*to).ok_or_else(|| {
                StepError::new(format!("{to} thousandths of a core are too few for {name} to answer at all"))
            })?;
            if before.is_some_and(|before| before < to.millis()) {
                return Err(StepError::new(format!("{name} has less than {to} of a core already")));
            }
            // Made first: what is half set comes back as well.
            lowered.push(Lowered { group: group.clone(), before });
            group.apply_cpu(Some(to.millis())).map_err(|error| StepError::new(crate::chain(&error)))?;
        }
        Ok(lowered)
    }

    /// A daemon that died within an intervention has left a limit that nobody wishes.
    pub(super) fn give_back_cpu(&self, process: &Process, size: Size) {
        let wished = size.cpu.map(Cpu::millis);
        let Some(group) = process.group().filter(|group| group.cpu_limit() != wished) else { return };
        if let Err(error) = group.apply_cpu(wished) {
            tracing::warn!(
                group = group.name(),
                error = crate::chain(&error),
                "a limit of CPU could not be given back"
            );
        }
    }
}
