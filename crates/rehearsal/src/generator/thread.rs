//! One thread of a generator: its share of the arrivals, and all that its visitors do.

use std::cell::{Cell, RefCell};
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::LocalOptions;
use tokio::sync::mpsc::Sender;
use tokio::task::{JoinError, JoinSet};
use tokio_util::sync::CancellationToken;

use super::clock::{Clock, Moment};
use super::pace::Pace;
use super::readers::Readers;
use super::recorder::{Recorder, Tally, Totals};
use super::script::Script;
use super::visit::visit;
use crate::arrivals::{Arrivals, Rate};
use crate::client::connect::{Shared, TlsClient};

/// How often seconds that are complete are looked for. A whole number of them makes a second.
const TICK: Duration = Duration::from_millis(200);
/// Visits that begin one after the other when all of them are late, before others are heard.
const BATCH: u32 = 64;

/// Tasks that run before the runtime looks at its sockets: all that are ready, as the [`Pace`] has it.
const TASKS_OF_A_TURN: u32 = 1 << 16;

/// What a thread is given.
pub struct Task {
    pub number: u64,
    pub script: Arc<Script>,
    pub clock: Clock,
    pub tls: Option<TlsClient>,
    /// Of all threads.
    pub connections: u32,
    /// Where seconds go. When nobody takes them any more, or not in time, the thread ends.
    pub seconds: Sender<Tally>,
    pub stop: CancellationToken,
}

/// What the visitors of one thread have in common.
pub struct Thread {
    pub number: u64,
    pub script: Arc<Script>,
    pub clock: Clock,
    pub pace: Pace,
    pub recorder: RefCell<Recorder>,
    pub client: Shared,
    pub readers: Readers,
    /// No step of a visit begins after it.
    pub end: Moment,
    visitors: Cell<u32>,
    visitors_limit: u32,
}

/// How it ended.
pub struct Ended {
    pub totals: Totals,
    /// Why before its time, where that was not the wish of whoever stopped it.
    pub cut_short: Option<&'static str>,
}

/// Carries out a share of the load, until all is done or it is told to stop.
///
/// # Errors
/// When the kernel gives it no event queue, or does not let it sleep exactly.
pub fn run(task: Task) -> io::Result<Ended> {
    // Its tasks, visits that were cut short, end with it. One that belongs to its thread, and all as tasks of it: to wake a
    // `LocalSet`, or the future that a runtime blocks on, is to write to an eventfd, which costs a turn.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .event_interval(TASKS_OF_A_TURN)
        .build_local(LocalOptions::default())?;
    runtime.block_on(runtime.spawn_local(carry_out(task))).unwrap_or_else(|error| Err(settled(error)))
}

async fn carry_out(task: Task) -> io::Result<Ended> {
    let Task { number, script, clock, tls, connections, seconds, stop } = task;
    let limits = &script.load.limits;
    let share = |limit: u32| limit / limits.threads + u32::from(number < u64::from(limit % limits.threads));
    let thread = Rc::new(Thread {
        number,
        clock,
        pace: Pace::new(clock)?,
        recorder: RefCell::new(Recorder::new(script.classes.len(), script.seconds(), script.patience)),
        client: Shared::new(script.load.origin.clone(), tls, share(connections), limits.body_bytes),
        readers: Readers::default(),
        end: Moment(0).after(script.lasts),
        visitors: Cell::new(0),
        visitors_limit: share(limits.visitors),
        script: Arc::clone(&script),
    });
    let mut pace = JoinSet::new();
    let kept = Rc::clone(&thread);
    pace.spawn_local(async move { kept.pace.keep().await });
    let mut visits = JoinSet::new();
    let cut_short = tokio::select! {
        biased;
        Some(Err(ended)) = pace.join_next() => return Err(settled(ended)),
        () = stop.cancelled() => None,
        () = hand_over(&thread, &seconds) => Some("nobody took what it measured"),
        ended = arrive(&thread, &mut visits) => {
            ended?;
            None
        }
    };
    let last = thread.clock.now();
    loop {
        let Some(tally) = thread.recorder.borrow_mut().flush(last) else { break };
        if seconds.send(tally).await.is_err() {
            break;
        }
    }
    visits.shutdown().await;
    let totals = std::mem::take(&mut thread.recorder.borrow_mut().totals);
    Ok(Ended { totals, cut_short })
}

/// Lets visits begin, and waits for the last of them to end.
async fn arrive(thread: &Rc<Thread>, visits: &mut JoinSet<()>) -> io::Result<()> {
    let load = &thread.script.load;
    let rate = Rate::new(&load.phases, load.noise, load.seed);
    let arrivals = Arrivals::new(rate, load.seed, thread.number, load.limits.threads);
    let mut at_once = 0;
    for (number, at) in (0..).zip(arrivals) {
        // Not behind it: nobody is left out at the end.
        let at = Moment(at).on_grid_before();
        if thread.clock.now() < at {
            thread.pace.until(at).await;
            at_once = 0;
        } else {
            at_once += 1;
            if at_once == BATCH {
                at_once = 0;
                tokio::task::yield_now().await;
            }
        }
        begin(thread, visits, number, at);
        while let Some(ended) = visits.try_join_next() {
            ended.map_err(settled)?;
        }
    }
    // The last of the load may be a rest. Whoever is under way then gets the patience it has.
    thread.pace.until(thread.end).await;
    while let Some(ended) = visits.join_next().await {
        ended.map_err(settled)?;
    }
    Ok(())
}

fn begin(thread: &Rc<Thread>, visits: &mut JoinSet<()>, number: u64, at: Moment) {
    if thread.visitors.get() >= thread.visitors_limit {
        thread.recorder.borrow_mut().not_offered();
        return;
    }
    thread.visitors.set(thread.visitors.get() + 1);
    thread.recorder.borrow_mut().visit_begins(at);
    let visiting = Rc::clone(thread);
    visits.spawn_local(async move {
        visit(Rc::clone(&visiting), number, at).await;
        visiting.visitors.set(visiting.visitors.get() - 1);
    });
}

/// A panic of a task is one of the thread.
fn settled(ended: JoinError) -> io::Error {
    match ended.try_into_panic() {
        Ok(panic) => std::panic::resume_unwind(panic),
        Err(cancelled) => io::Error::other(cancelled),
    }
}

/// Hands over each second that is complete. Ends when it cannot.
async fn hand_over(thread: &Thread, seconds: &Sender<Tally>) {
    let ticks_per_second = (1_000 / TICK.as_millis()) as u64;
    for tick in 1.. {
        // Before those who end with the second, who are woken at once.
        thread.pace.until(Moment(0).after(TICK * tick).just_before()).await;
        if u64::from(tick) % ticks_per_second == 0 {
            let second = Moment(0).after(TICK * (tick - 1)).in_second();
            if Moment::second(second) < thread.end {
                thread.recorder.borrow_mut().look(second, thread.visitors.get(), thread.client.open());
            }
        }
        loop {
            let Some(tally) = thread.recorder.borrow_mut().complete(thread.clock.now()) else { break };
            // Waiting here would hold up all visitors.
            if seconds.try_send(tally).is_err() {
                return;
            }
        }
    }
}
