//! Carrying a plan out: journaled, resumable, and taken back when a step fails.
//!
//! Before the first step the journal holds the whole plan. After each step its effect on the topology and the cursor
//! are committed together. So a daemon killed at any instant leaves a journal from which the next one takes the same
//! step again, and every step is safe to take again. When a step fails, the inverses of the steps before it are taken
//! in reverse, journaled the same way.

use std::sync::Arc;

use model::InstanceId;
use plan::{Action, Plan};

use super::aside::Aside;
use super::world::{Journaling, NotChanged};
use super::{Machine, StepError};
use crate::release::{DiskFloor, DiskLow};
use crate::store::{Direction, Journal, StoreError};

/// No plan begins with less space than this: it must be able to write down what it does, to its end.
const PLAN_FLOOR: DiskFloor = DiskFloor { percent: 0, bytes: 64 * 1024 * 1024 };

/// What happens while something is carried out, for whoever watches.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Event {
    Started {
        step: usize,
        of: usize,
        what: String,
    },
    Done {
        step: usize,
        of: usize,
        what: String,
        took_ms: u64,
    },
    Failed {
        step: usize,
        of: usize,
        what: String,
        reason: String,
        hint: Option<String>,
        last_lines: Vec<String>,
    },
    /// A step is taken back.
    Undone {
        what: String,
    },
    /// A line that a build said.
    BuildLine {
        line: String,
    },
    /// Something that should be known and is no step.
    Note {
        text: String,
    },
}

/// Receives events; never blocks.
pub type Report = Arc<dyn Fn(Event) + Send + Sync>;

/// Ends the process on purpose at one instant, or takes the disk from it, to prove that what follows is safe.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CrashPoint {
    /// Of a plan, whose steps are counted from 0.
    Step(usize, Moment),
    Failover(FailoverMoment),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Moment {
    BeforeEffect,
    /// The step is done and not yet written down.
    AfterEffect,
    AfterCommit,
    /// The step is done, and from here on nothing can be written down: the disk is full.
    DiskFull,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FailoverMoment {
    /// The successor is chosen.
    Chosen,
    /// It is written down that it is the primary, and it still follows.
    WrittenDown,
    /// It takes writes, and nobody was told.
    Promoted,
}

/// How a plan ended well.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Applied {
    pub steps: usize,
    /// Of the world it led to.
    pub generation: u64,
}

#[derive(Debug, thiserror::Error)]
pub enum ApplyError {
    #[error("the plan starts from generation {planned}, and generation {standing} stands")]
    Stale { planned: u64, standing: u64 },
    #[error("the plan is for another app, {0}")]
    OtherApp(String),
    #[error("another plan is being carried out")]
    Busy,
    #[error("{what}: {}", .error.reason)]
    RolledBack { what: String, error: StepError },
    #[error("the app was brought down meanwhile")]
    Interrupted,
    /// A restore that is taken up again found no turn.
    #[error("{}", .0.reason)]
    BackupUnderWay(StepError),
    #[error(transparent)]
    DiskLow(#[from] DiskLow),
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl ApplyError {
    pub fn hint(&self) -> Option<String> {
        match self {
            ApplyError::Stale { .. } => Some("plan again: `switchback plan`".into()),
            ApplyError::OtherApp(_) => Some("name that app's folder with -C".into()),
            ApplyError::Interrupted => Some("`switchback up` goes on with it".into()),
            ApplyError::BackupUnderWay(_) => {
                Some("wait for it to end; `switchback up` goes on with the restore".into())
            }
            ApplyError::Busy => Some("wait for it to end; `switchback status` shows it".into()),
            ApplyError::RolledBack { error, .. } => error.hint.clone(),
            ApplyError::DiskLow(_) => Some("free some space; nothing was changed".into()),
            ApplyError::Store(_) => {
                Some("see that the disk is not full, then run it again: it resumes".into())
            }
        }
    }
}

impl Machine {
    /// Carries `plan` out, or takes everything back.
    ///
    /// # Errors
    /// [`ApplyError::Stale`] when something else has changed the world since it was planned. After
    /// [`ApplyError::RolledBack`] what stood before stands again.
    pub async fn apply(&self, plan: Plan, report: &Report) -> Result<Applied, ApplyError> {
        let standing = self.world();
        if plan.app != self.inner.setup.app {
            return Err(ApplyError::OtherApp(plan.app.to_string()));
        }
        if self.inner.store.journal()?.is_some() {
            return Err(ApplyError::Busy);
        }
        if plan.parent != standing.generation {
            return Err(ApplyError::Stale { planned: plan.parent, standing: standing.generation });
        }
        if plan.steps.is_empty() {
            return Ok(Applied { steps: 0, generation: standing.generation });
        }
        if let Some(low) = self.disk_low() {
            return Err(low.into());
        }
        for change in &plan.changes {
            self.remember(change.resource.as_str(), change.kind.to_string(), change.why.clone());
        }
        let journal = Journal { plan, direction: Direction::Forward, cursor: 0 };
        self.write_journal(Journaling::Write(&journal))?;
        self.carry_on(journal, report).await
    }

    /// Why no plan can begin now. A disk that cannot be asked is taken to have space.
    pub(super) fn disk_low(&self) -> Option<DiskLow> {
        PLAN_FLOOR.check(self.inner.setup.state.root(), 0).ok()?.err()
    }

    /// Takes up the plan that an earlier daemon did not finish; `None` when there is none.
    ///
    /// # Errors
    /// As [`Machine::apply`].
    pub async fn resume(&self, report: &Report) -> Option<Result<Applied, ApplyError>> {
        match self.inner.store.journal() {
            Ok(None) => None,
            Ok(Some(journal)) => {
                let text = format!("taking up plan {} at step {}", journal.plan.id, journal.cursor + 1);
                report(Event::Note { text });
                Some(self.resume_from(journal, report).await)
            }
            Err(error) => Some(Err(error.into())),
        }
    }

    async fn resume_from(&self, journal: Journal, report: &Report) -> Result<Applied, ApplyError> {
        let prepares = |step: &plan::Step| matches!(step.action, Action::PrepareRestore { .. });
        // As whoever began it did: what it reads must not be deleted meanwhile.
        let _no_other = if journal.plan.steps.iter().any(prepares) {
            Some(self.hold_backups().await.map_err(ApplyError::BackupUnderWay)?)
        } else {
            None
        };
        self.carry_on(journal, report).await
    }

    async fn carry_on(&self, mut journal: Journal, report: &Report) -> Result<Applied, ApplyError> {
        let of = journal.plan.steps.len();
        while journal.direction == Direction::Forward && journal.cursor < of {
            if !self.is_running() {
                return Err(ApplyError::Interrupted);
            }
            let action = journal.plan.steps[journal.cursor].action.clone();
            if let Err(mut error) = self.take(&action, &mut journal, report).await {
                if let Some(low) = self.disk_low() {
                    error = error.hint(format!("{low}; free some space, then do it again"));
                }
                if !self.is_running() {
                    return Err(ApplyError::Interrupted);
                }
                let what = action.to_string();
                let (step, reason) = (journal.cursor + 1, error.reason.clone());
                let (hint, last_lines) = (error.hint.clone(), error.last_lines.clone());
                report(Event::Failed {
                    step,
                    of,
                    what: what.clone(),
                    reason: reason.clone(),
                    hint,
                    last_lines,
                });
                self.remember(
                    "plan",
                    format!("take back plan {}", journal.plan.id),
                    format!("{what}: {reason}"),
                );
                // What the failed step left half done is taken back like a step that was done.
                journal.direction = Direction::Back { because: format!("{what}: {reason}") };
                self.abandon(&action, report).await;
                self.note_that_it_failed(&action, &reason);
                self.write_journal(Journaling::Write(&journal))?;
                self.go_back(journal, report).await?;
                return Err(ApplyError::RolledBack { what, error });
            }
        }
        if let Direction::Back { because } = journal.direction.clone() {
            let what = format!("plan {}", journal.plan.id);
            self.go_back(journal, report).await?;
            return Err(ApplyError::RolledBack { what, error: StepError::new(because) });
        }
        let changes_standbys =
            |step: &plan::Step| matches!(step.action, Action::AddFollower { .. } | Action::SwitchOver { .. });
        if journal.plan.steps.iter().any(changes_standbys) {
            self.followers_settle(report).await;
        }
        self.write_journal(Journaling::Clear)?;
        self.close_output_of_the_gone();
        self.keep_new_nodes();
        self.delete_what_stands_aside(Aside::All, report).await;
        Ok(Applied { steps: of, generation: self.world().generation })
    }

    async fn take(&self, action: &Action, journal: &mut Journal, report: &Report) -> Result<(), StepError> {
        let (step, of) = (journal.cursor, journal.plan.steps.len());
        report(Event::Started { step: step + 1, of, what: action.to_string() });
        let started = std::time::Instant::now();
        let mut next = self.world().topology;
        action.apply(&mut next).map_err(|unmet| StepError::new(unmet.to_string()))?;

        self.crash_at(CrashPoint::Step(step, Moment::BeforeEffect));
        self.perform(action, &next, report).await?;
        self.crash_at(CrashPoint::Step(step, Moment::AfterEffect));
        if self.inner.crash_point == Some(CrashPoint::Step(step, Moment::DiskFull)) {
            self.inner.store.refuse();
        }
        journal.cursor += 1;
        // Applied to what stands by now: a failover may have changed it meanwhile.
        let committed = self.change_world(Journaling::Write(journal), |world| {
            action.apply(&mut world.topology)?;
            world.generation += 1;
            Ok(())
        });
        if let Err(error) = committed {
            journal.cursor -= 1;
            self.forget_what_is_ahead();
            return Err(error.into());
        }
        self.crash_at(CrashPoint::Step(step, Moment::AfterCommit));
        if let Action::ReplacePrimary { new, .. } = action {
            self.show_replacement(&new.id).await;
        }
        let took_ms = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
        report(Event::Done { step: step + 1, of, what: action.to_string(), took_ms });
        Ok(())
    }

    /// Takes the inverses of what was done, last first. An inverse that fails is reported and passed over: its keeper
    /// goes on trying where there is one, and what could still be restored must not wait for it.
    async fn go_back(&self, mut journal: Journal, report: &Report) -> Result<(), ApplyError> {
        while journal.cursor > 0 {
            let action = journal.plan.steps[journal.cursor - 1].action.clone();
            let mut taken = None;
            if let Some(inverse) = action.inverse() {
                report(Event::Undone { what: inverse.to_string() });
                let mut next = self.world().topology;
                match inverse.apply(&mut next) {
                    Ok(()) => {
                        if let Err(error) = self.perform_inverse(&inverse, &next, report).await {
                            let text = format!("{inverse}: {}", error.reason);
                            self.remember("plan", "go on taking back without it", text.clone());
                            report(Event::Note { text });
                        }
                        taken = Some(inverse);
                    }
                    Err(unmet) => report(Event::Note { text: format!("{inverse}: {unmet}") }),
                }
            }
            journal.cursor -= 1;
            let committed = self.change_world(Journaling::Write(&journal), |world| {
                if let Some(inverse) = &taken {
                    inverse.apply(&mut world.topology)?;
                    world.generation += 1;
                }
                Ok(())
            });
            match committed {
                Ok(_) => {}
                Err(NotChanged::Store(error)) => return Err(error.into()),
                Err(NotChanged::Refused(unmet)) => {
                    report(Event::Note { text: unmet.to_string() });
                    self.write_journal(Journaling::Write(&journal))?;
                }
            }
        }
        self.write_journal(Journaling::Clear)?;
        self.close_output_of_the_gone();
        Ok(())
    }

    /// The number of an instance is given once: one that is gone writes nothing more. Only while no plan is in progress,
    /// which may bring it back.
    pub(super) fn close_output_of_the_gone(&self) {
        let setup = &self.inner.setup;
        let topology = self.world().topology;
        let is_gone = |name: &String| {
            let Ok(id) = name.parse::<InstanceId>() else { return false };
            let next = topology.next_instance.get(id.resource());
            next.is_some_and(|next| id.number() < *next)
                && !topology.instances.contains_key(&id)
                && setup.processes.find(name).is_none()
        };
        for name in setup.logs.open().unwrap_or_default().into_iter().filter(is_gone) {
            if let Err(error) = setup.logs.close(&name) {
                tracing::warn!(%error, process = name, "its output is still looked at");
            }
        }
    }

    fn write_journal(&self, journaling: Journaling<'_>) -> Result<(), StoreError> {
        match self.change_world(journaling, |_| Ok(())) {
            Err(NotChanged::Store(error)) => Err(error),
            Ok(_) | Err(NotChanged::Refused(_)) => Ok(()),
        }
    }

    pub(super) fn crash_at(&self, point: CrashPoint) {
        if self.inner.crash_point == Some(point) {
            // As SIGKILL does it: nothing is flushed, nobody is told.
            let _ = rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL);
        }
    }
}
