//! Keeps one process running: starts it, waits until it says that it is ready, watches it, restarts it with backoff.
//!
//! A keeper is a task that owns its process. Whoever asked for it holds a [`Keeper`] handle: a watch on its
//! [`KeptState`] and a way to end it. The daemon's death ends keepers but not processes; the next daemon's keepers
//! adopt them. What differs between an instance, a PostgreSQL and a role stands behind [`Job`].

mod trouble;

use std::future::Future;
use std::time::Duration;

use model::ByteSize;
use serde::{Deserialize, Serialize};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, MissedTickBehavior, sleep, timeout, timeout_at};

use crate::chain;
use crate::process::{Command, Ended, FENCE_LIMIT, Process, Processes, Spec};

pub(crate) use trouble::{Trouble, out_of_memory};

use trouble::Why;

/// Restarts wait this long at first, then twice as long each time.
const FIRST_BACKOFF: Duration = Duration::from_millis(100);
const MAX_BACKOFF: Duration = Duration::from_secs(30);
/// A process that ran this long has recovered: its next crash begins with the first backoff again.
const STABLE_AFTER: Duration = Duration::from_secs(30);
/// Crashes in a row, without having been stable between, that make a crash loop.
const CRASH_LOOP_AFTER: u32 = 5;
const LIVENESS_INTERVAL: Duration = Duration::from_secs(2);
/// Missed answers in a row before a process counts as hung and is killed and restarted.
const LIVENESS_MISSES: u32 = 5;
/// How long a process that is in the way of its successor may take to end.
const UNRESPONSIVE_GRACE: Duration = Duration::from_secs(2);

/// What a keeper must know of the process it keeps.
pub(crate) trait Job: Send + Sync + 'static {
    /// Names the process in records, logs and `status`.
    fn name(&self) -> String;

    /// What to start, made anew for every start. May prepare files and sockets.
    fn spec(&self) -> impl Future<Output = Result<Spec, String>> + Send;

    /// Resolves when the process is ready, with an error when it never will be. Cancel safe.
    fn ready(&self) -> impl Future<Output = Result<(), String>> + Send;

    /// Time for [`Job::ready`].
    fn start_timeout(&self) -> Duration;

    /// One liveness check, bounded in time. Cancel safe.
    fn alive(&self) -> impl Future<Output = Result<(), String>> + Send;

    /// From the stop signal to SIGKILL.
    fn grace(&self) -> Duration;

    /// From the end of the process to SIGKILL for children that outlive it.
    fn orphan_grace(&self) -> Duration {
        UNRESPONSIVE_GRACE
    }

    /// How long such children are waited for once they were killed: longer than the kernel needs, unless a disk holds
    /// them.
    fn orphan_limit(&self) -> Duration {
        FENCE_LIMIT
    }

    /// Called when nothing of the process is left that could do anything, and before it is started again: what must be
    /// decided while it is down is decided here.
    fn down(&self, _why: Down) -> impl Future<Output = ()> + Send {
        std::future::ready(())
    }

    /// The last lines the process said since it was started, the oldest first.
    fn last_lines(&self) -> Vec<String>;

    /// Adds a line to what the process said.
    fn note(&self, text: &str);

    /// What to do about it, where that can be said.
    fn advice(&self, _trouble: Trouble) -> Option<String> {
        None
    }
}

/// Why a process is down that is to be started again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Down {
    /// By itself, or because it was hung.
    Ended,
    /// It was to be restarted.
    Asked,
}

/// What a kept process is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Phase {
    Starting,
    Ready,
    /// Misses its liveness checks; not yet given up.
    Unresponsive,
    /// Ended; waits to be started again.
    Restarting,
    /// Ended again and again; still restarted, at the longest backoff.
    CrashLooping,
    Stopping,
    Stopped,
    /// Never became ready at its first start and was given up.
    Failed,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct KeptState {
    pub phase: Phase,
    pub pid: Option<u32>,
    pub restarts: u32,
    /// How often it became ready under this daemon.
    pub times_ready: u64,
    /// Why the process is not ready, or ended last.
    pub reason: Option<String>,
    /// What to do about that.
    pub hint: Option<String>,
    /// Processes of it that the kernel has killed because memory ran out, since its last start.
    pub oom_kills: u64,
    pub memory_limit: Option<ByteSize>,
    /// The last lines the process said before it ended.
    pub last_lines: Vec<String>,
}

/// How a keeper begins.
pub(crate) enum Begin {
    /// A first start: not becoming ready is a failure, said once.
    Fresh,
    /// What should run and does not: keep trying.
    Restore,
    /// A process of an earlier daemon, running.
    Adopt(Process),
}

/// A handle on a keeper. Dropping it ends the keeper and leaves the process running.
pub(crate) struct Keeper {
    watched: Watched,
    task: JoinHandle<()>,
}

/// Looks at a keeper without owning it. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Watched {
    state: watch::Receiver<KeptState>,
    orders: mpsc::Sender<Order>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Order {
    Stop(Duration),
    /// Stops it in order and starts it again.
    Restart,
}

impl Keeper {
    /// `changed` is told after every change of state.
    pub(crate) fn begin<J: Job>(
        job: J,
        processes: Processes,
        begin: Begin,
        changed: watch::Sender<u64>,
    ) -> Keeper {
        let first = KeptState {
            phase: Phase::Starting,
            pid: match &begin {
                Begin::Adopt(process) => Some(process.pid()),
                Begin::Fresh | Begin::Restore => None,
            },
            restarts: 0,
            times_ready: 0,
            reason: None,
            hint: None,
            oom_kills: 0,
            memory_limit: None,
            last_lines: Vec::new(),
        };
        let (state, watched) = watch::channel(first);
        let (orders, received) = mpsc::channel(4);
        let run = Run { job, processes, state, orders: received, changed, command: None, crashes: 0 };
        Keeper { watched: Watched { state: watched, orders }, task: tokio::spawn(run.run(begin)) }
    }

    pub(crate) fn watch(&self) -> Watched {
        self.watched.clone()
    }

    pub(crate) fn state(&self) -> KeptState {
        self.watched.state()
    }

    /// Stops the process and everything it left behind, then ends.
    pub(crate) async fn stop(mut self, grace: Duration) {
        // A keeper that has ended already needs no order.
        let _ = self.watched.orders.send(Order::Stop(grace)).await;
        let _ = (&mut self.task).await;
    }
}

impl Watched {
    pub(crate) fn state(&self) -> KeptState {
        self.state.borrow().clone()
    }

    /// Resolves when the process is ready. Cancel safe.
    ///
    /// # Errors
    /// When its first start failed or it was stopped, with the state that says why.
    pub(crate) async fn ready(&mut self) -> Result<(), KeptState> {
        self.ready_after(0).await
    }

    /// Stops the process in order, starts it again and waits until it is ready.
    ///
    /// # Errors
    /// When it was stopped meanwhile.
    pub(crate) async fn restart(&mut self) -> Result<(), KeptState> {
        let before = self.ask_to_restart().await;
        self.ready_after(before).await
    }

    /// As [`Watched::restart`], for a caller who has something to do while it is down. Gives how often it was ready
    /// before, for [`Watched::ready_after`].
    pub(crate) async fn ask_to_restart(&mut self) -> u64 {
        let before = self.state.borrow().times_ready;
        let _ = self.orders.send(Order::Restart).await;
        before
    }

    /// Resolves when it is ready for more than this number of times. Cancel safe.
    ///
    /// # Errors
    /// As [`Watched::ready`].
    pub(crate) async fn ready_after(&mut self, times: u64) -> Result<(), KeptState> {
        let waited = self.state.wait_for(|state| match state.phase {
            Phase::Ready => state.times_ready > times,
            Phase::Failed | Phase::Stopped => true,
            _ => false,
        });
        match waited.await.map(|state| state.clone()) {
            Ok(state) if state.phase == Phase::Ready => Ok(()),
            Ok(state) => Err(state),
            Err(_) => Err(self.state()),
        }
    }
}

impl Keeper {
    /// Ends the keeper and lets the process run. Afterwards it starts nothing any more.
    pub(crate) async fn release(mut self) {
        self.task.abort();
        let _ = (&mut self.task).await;
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        self.task.abort();
    }
}

struct Run<J> {
    job: J,
    processes: Processes,
    state: watch::Sender<KeptState>,
    orders: mpsc::Receiver<Order>,
    changed: watch::Sender<u64>,
    /// Of the last start; an earlier daemon's is not known.
    command: Option<Command>,
    /// In a row.
    crashes: u32,
}

/// Why a process is no longer looked after by the inner loop.
enum Left {
    Stop(Duration),
    Restart,
    Ended(Why),
    /// Runs but does not answer.
    Hung(Why),
    NeverReady(Why),
}

impl<J: Job> Run<J> {
    async fn run(mut self, begin: Begin) {
        let (mut adopted, mut fresh) = match begin {
            Begin::Adopt(process) => (Some(process), false),
            Begin::Restore => (None, false),
            Begin::Fresh => (None, true),
        };
        loop {
            let started = Instant::now();
            let left = match adopted.take() {
                Some(process) => self.look_after(process, Readiness::Proven).await,
                None => match self.start().await {
                    Ok(process) => self.look_after(process, Readiness::Awaited).await,
                    Err(left) => (left, None),
                },
            };
            let (left, process) = left;
            // What was ready once is restarted for good, whatever it was begun for.
            fresh = fresh && self.state.borrow().times_ready == 0;
            match left {
                Left::Stop(grace) => return self.stop(process, grace, Phase::Stopped, None).await,
                Left::Restart => {
                    self.set(|state| state.phase = Phase::Restarting);
                    if let Some(process) = process {
                        end(&process, self.job.grace()).await;
                    }
                    if let Some(grace) = self.decided(Down::Asked).await {
                        return self.stop(None, grace, Phase::Stopped, None).await;
                    }
                    continue;
                }
                Left::NeverReady(why) | Left::Ended(why) if fresh => {
                    return self.stop(process, UNRESPONSIVE_GRACE, Phase::Failed, Some(why)).await;
                }
                Left::Ended(why) | Left::NeverReady(why) | Left::Hung(why) => {
                    self.crashes = if started.elapsed() >= STABLE_AFTER { 1 } else { self.crashes + 1 };
                    if let Some(stop) = self.clear_and_back_off(process, why).await {
                        return self.stop(None, stop, Phase::Stopped, None).await;
                    }
                }
            }
        }
    }

    async fn start(&mut self) -> Result<Process, Left> {
        self.set(|state| {
            state.phase = Phase::Starting;
            state.pid = None;
            state.oom_kills = 0;
        });
        // What has to be prepared may take long: a database is copied first.
        let spec = tokio::select! {
            spec = self.job.spec() => spec.map_err(|reason| Left::NeverReady(Why { reason, hint: None }))?,
            order = next(&mut self.orders) => return Err(left_by(order)),
        };
        self.command = Some(spec.command.clone());
        let process = self.processes.spawn(spec).map_err(|error| {
            let hint = error.as_exit().and_then(|exit| self.job.advice(Trouble::Ended(exit)));
            Left::NeverReady(Why { reason: chain(&error), hint })
        })?;
        let pid = process.pid();
        self.set(|state| state.pid = Some(pid));
        Ok(process)
    }

    /// From started to no longer needing to be looked after. Gives the process back where it still runs.
    async fn look_after(&mut self, process: Process, readiness: Readiness) -> (Left, Option<Process>) {
        if readiness == Readiness::Awaited {
            let limit = self.job.start_timeout();
            tokio::select! {
                ready = timeout(limit, self.job.ready()) => match ready {
                    Ok(Ok(())) => {}
                    Ok(Err(reason)) => return (Left::NeverReady(self.not_ready(reason)), Some(process)),
                    Err(_) => {
                        let reason = format!("not ready within {} s", limit.as_secs_f32());
                        return (Left::NeverReady(self.not_ready(reason)), Some(process));
                    }
                },
                exit = process.exited() => {
                    let why = self.ended(&process, exit, "ended before it was ready");
                    return (Left::Ended(why), Some(process));
                }
                order = next(&mut self.orders) => return (left_by(order), Some(process)),
            }
        }
        if readiness == Readiness::Proven {
            // It is taken to be ready whatever it says now; asked, the job learns how to ask.
            let _ = self.job.alive().await;
        }
        self.set(|state| {
            state.phase = Phase::Ready;
            state.times_ready += 1;
            state.reason = None;
            state.hint = None;
        });
        let mut misses = 0;
        let mut ticks = tokio::time::interval_at(Instant::now() + LIVENESS_INTERVAL, LIVENESS_INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                exit = process.exited() => {
                    return (Left::Ended(self.ended(&process, exit, "ended")), Some(process));
                }
                order = next(&mut self.orders) => return (left_by(order), Some(process)),
                _ = ticks.tick() => {}
            }
            self.look_at_memory(&process);
            tokio::select! {
                exit = process.exited() => {
                    return (Left::Ended(self.ended(&process, exit, "ended")), Some(process));
                }
                order = next(&mut self.orders) => return (left_by(order), Some(process)),
                alive = self.job.alive() => match alive {
                    Ok(()) if misses > 0 => {
                        misses = 0;
                        self.set(|state| state.phase = Phase::Ready);
                    }
                    Ok(()) => {}
                    Err(reason) => {
                        misses += 1;
                        if misses >= LIVENESS_MISSES {
                            return (Left::Hung(Why { reason, hint: None }), Some(process));
                        }
                        self.set(|state| {
                            state.phase = Phase::Unresponsive;
                            state.reason = Some(reason);
                        });
                    }
                },
            }
        }
    }

    /// `Some` when it was told to stop meanwhile.
    async fn clear_and_back_off(&mut self, process: Option<Process>, why: Why) -> Option<Duration> {
        let Why { reason, hint } = why;
        let name = self.job.name();
        let last = self.last_lines_of(process.as_ref());
        let looping = self.crashes >= CRASH_LOOP_AFTER;
        tracing::warn!(process = name, reason, restarts = self.crashes, "process ended");
        self.set(|state| {
            state.phase = if looping { Phase::CrashLooping } else { Phase::Restarting };
            state.reason = Some(reason);
            state.hint = hint;
            state.last_lines = last;
            state.restarts += 1;
        });
        match process {
            // Asked first: a hung process may still be able to end in order. What is dead only leaves children behind.
            Some(process) => {
                let dead = process.try_exited().is_some();
                if dead {
                    end_within(&process, self.job.orphan_grace(), self.job.orphan_limit()).await;
                } else {
                    end(&process, UNRESPONSIVE_GRACE).await;
                }
            }
            None => {
                if let Err(left) = self.processes.clear(&name).await {
                    tracing::warn!(process = name, error = %left, "something of it is still there");
                }
            }
        }
        self.set(|state| state.pid = None);
        if let Some(stop) = self.decided(Down::Ended).await {
            return Some(stop);
        }
        let backoff =
            FIRST_BACKOFF.saturating_mul(1 << self.crashes.saturating_sub(1).min(16)).min(MAX_BACKOFF);
        let until = Instant::now() + backoff;
        match timeout_at(until, next(&mut self.orders)).await {
            Ok(Order::Stop(grace)) => Some(grace),
            Ok(Order::Restart) | Err(_) => None,
        }
    }

    /// Waits until it is decided what comes next. `Some` when it was told to stop meanwhile.
    async fn decided(&mut self, why: Down) -> Option<Duration> {
        let decided = self.job.down(why);
        tokio::pin!(decided);
        loop {
            tokio::select! {
                () = &mut decided => return None,
                order = next(&mut self.orders) => match order {
                    Order::Stop(grace) => return Some(grace),
                    // It is about to be started anyway.
                    Order::Restart => {}
                },
            }
        }
    }

    async fn stop(mut self, process: Option<Process>, grace: Duration, at: Phase, why: Option<Why>) {
        let name = self.job.name();
        let last = if at == Phase::Failed { self.last_lines_of(process.as_ref()) } else { Vec::new() };
        if at == Phase::Stopped {
            self.set(|state| state.phase = Phase::Stopping);
        }
        match process {
            Some(process) => {
                end(&process, grace).await;
            }
            None => {
                if let Err(left) = self.processes.clear(&name).await {
                    tracing::warn!(process = name, error = %left, "something of it is still there");
                }
            }
        }
        self.processes.forget(&name);
        self.set(|state| {
            state.phase = at;
            state.pid = None;
            (state.reason, state.hint) = why.map_or((None, None), |why| (Some(why.reason), why.hint));
            state.last_lines = last;
        });
    }

    /// What could not be started has said nothing, whatever the one before it said.
    fn last_lines_of(&self, process: Option<&Process>) -> Vec<String> {
        process.map_or_else(Vec::new, |_| self.job.last_lines())
    }

    fn set(&mut self, change: impl FnOnce(&mut KeptState)) {
        self.state.send_modify(change);
        self.changed.send_modify(|count| *count += 1);
    }
}

#[derive(PartialEq, Eq)]
enum Readiness {
    Awaited,
    /// It served before the daemon was replaced.
    Proven,
}

/// Waits for ever once the handle is gone: the task is then aborted anyway.
async fn next(orders: &mut mpsc::Receiver<Order>) -> Order {
    match orders.recv().await {
        Some(order) => order,
        None => std::future::pending().await,
    }
}

fn left_by(order: Order) -> Left {
    match order {
        Order::Stop(grace) => Left::Stop(grace),
        Order::Restart => Left::Restart,
    }
}

/// Stops a process and all it left behind. What had to be done to get there is logged: the caller goes on anyway.
pub(crate) async fn end(process: &Process, grace: Duration) {
    end_within(process, grace, FENCE_LIMIT).await;
}

/// `limit` is for what SIGKILL does not end.
async fn end_within(process: &Process, grace: Duration, limit: Duration) {
    let name = process.name();
    match process.stop_within(grace, limit).await {
        Ok(report) if report.ended == Ended::AtOnce => {
            tracing::warn!(process = name, "did not end within its grace and was told to end at once");
        }
        Ok(report) if report.ended == Ended::LeaderKilled && !grace.is_zero() => {
            tracing::warn!(process = name, "did not end within its grace and was killed");
        }
        Ok(report) if report.leftover > 0 => {
            tracing::warn!(
                process = name,
                children = report.leftover,
                "left children behind; they were killed"
            );
        }
        Ok(_) => {}
        Err(alive) => tracing::error!(process = name, error = %alive, "survived SIGKILL"),
    }
}

/// Polls `check` until it passes. For readiness: the pause is short at first, as most things start fast.
pub(crate) async fn until_ready<F, Fut>(mut check: F)
where
    F: FnMut() -> Fut,
    Fut: Future<Output = bool>,
{
    let mut pause = Duration::from_millis(5);
    while !check().await {
        sleep(pause).await;
        pause = (pause * 3 / 2).min(Duration::from_millis(250));
    }
}
