//! What went wrong with a kept process, and what to do about it, in the words of `status` and `why`.

use model::ByteSize;

use super::{Job, Run};
use crate::cgroup::Group;
use crate::process::{Exit, Process};

/// What went wrong with a process, for whoever says what to do about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Trouble {
    Ended(Exit),
    /// The kernel killed it, or a process of it.
    OutOfMemory {
        limit: Option<ByteSize>,
    },
    NotReady,
}

/// Why a process does not serve, and what to do about it.
pub(super) struct Why {
    pub(super) reason: String,
    pub(super) hint: Option<String>,
}

impl<J: Job> Run<J> {
    pub(super) fn not_ready(&self, reason: String) -> Why {
        Why { reason, hint: self.job.advice(Trouble::NotReady) }
    }

    pub(super) fn ended(&mut self, process: &Process, exit: Exit, how: &str) -> Why {
        let killed = process.oom_kills().saturating_sub(self.state.borrow().oom_kills);
        if killed > 0 {
            let limit = process.group().and_then(Group::memory_limit);
            let hint = self.job.advice(Trouble::OutOfMemory { limit });
            let memory = out_of_memory(limit);
            let reason = match exit {
                Exit::Signal(libc::SIGKILL) => format!("{how}: killed by the kernel, {memory}"),
                _ => format!("{how}: {exit}, after the kernel had killed a process of it, {memory}"),
            };
            self.job.note(&reason);
            return Why { reason, hint };
        }
        let meaning = self.command.as_ref().and_then(|command| exit.explain(command));
        let reason = match meaning {
            Some(meaning) => format!("{how}: {exit} ({meaning})"),
            None => format!("{how}: {exit}"),
        };
        Why { reason, hint: self.job.advice(Trouble::Ended(exit)) }
    }

    /// An app of several processes goes on when the kernel kills one of them, and often says nothing of it.
    pub(super) fn look_at_memory(&mut self, process: &Process) {
        let killed = process.oom_kills();
        if killed <= self.state.borrow().oom_kills {
            return;
        }
        let limit = process.group().and_then(Group::memory_limit);
        self.job.note(&format!("the kernel killed a process of it, {}", out_of_memory(limit)));
        self.set(|state| {
            state.oom_kills = killed;
            state.memory_limit = limit;
        });
    }
}

/// In the words of `status`, `why` and the log of the process.
pub(crate) fn out_of_memory(limit: Option<ByteSize>) -> String {
    match limit {
        Some(limit) => format!("out of memory (limit {limit})"),
        None => "out of memory".to_owned(),
    }
}
