//! Constant load by two kinds of clients, which forgive nothing.
//!
//! One keeps its connections, the other makes a new one for each request. Neither retries: a refused or reset
//! connection, an answer cut short, and any status but 2xx and 3xx is a failure. So is a kept connection that closes
//! between a request and its answer; only `Connection: close` in an answer announces an end.

mod client;
mod report;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tokio::sync::watch;
use tokio::task::JoinSet;

pub use report::LoadReport;

use client::{Client, Connections};
use report::Tally;

/// What clients do.
#[derive(Debug, Clone, Copy)]
pub struct Mix {
    /// Clients that keep their connection, each with one request at a time.
    pub keep_alive_connections: usize,
    /// Clients that make a new connection for each request.
    pub new_connection_workers: usize,
    /// Requests per second of all together. `None`: as fast as they are answered.
    pub rate: Option<u32>,
}

impl Mix {
    /// Eight clients that keep connections and four that do not, 800 requests a second: a load that a small machine
    /// bears beside a deployment.
    pub fn both() -> Mix {
        Mix { keep_alive_connections: 8, new_connection_workers: 4, rate: Some(800) }
    }

    pub fn at_most(self, requests_per_second: u32) -> Mix {
        Mix { rate: Some(requests_per_second), ..self }
    }

    pub fn as_fast_as_possible(self) -> Mix {
        Mix { rate: None, ..self }
    }

    fn workers(self) -> usize {
        self.keep_alive_connections + self.new_connection_workers
    }

    /// Between two requests of one worker.
    fn pause(self) -> Option<Duration> {
        let rate = f64::from(self.rate?.max(1));
        Some(Duration::from_secs_f64(f64::from(u32::try_from(self.workers()).unwrap_or(u32::MAX)) / rate))
    }
}

/// Load that runs until it is stopped. It has a thread and a runtime of its own, so that a test may block.
pub struct Load {
    stop: watch::Sender<bool>,
    requests: Arc<AtomicU64>,
    thread: Option<JoinHandle<Tally>>,
}

impl Load {
    /// Asks for `url` until [`Load::stop`].
    ///
    /// # Panics
    /// When the address is not a number and a port, or no thread can be had.
    pub fn start(url: &str, mix: Mix) -> Load {
        let (stop, stopped) = watch::channel(false);
        let requests = Arc::new(AtomicU64::new(0));
        let client = Client::of(url);
        let count = Arc::clone(&requests);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let work = move || runtime.block_on(run(client, mix, stopped, count));
        let thread = std::thread::Builder::new().name("load".into()).spawn(work).expect("a thread");
        Load { stop, requests, thread: Some(thread) }
    }

    /// Requests answered or failed so far.
    pub fn requests(&self) -> u64 {
        self.requests.load(Ordering::Relaxed)
    }

    /// Blocks until so many more requests have been made.
    ///
    /// # Panics
    /// When they are not made within `limit`.
    pub fn wait_for_more(&self, requests: u64, limit: Duration) {
        let (goal, deadline) = (self.requests() + requests, Instant::now() + limit);
        while self.requests() < goal {
            assert!(Instant::now() < deadline, "{requests} more requests took longer than {limit:?}");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Lets every request in flight end, and says what came of all.
    ///
    /// # Panics
    /// When the load itself panicked.
    pub fn stop(mut self) -> LoadReport {
        self.end().expect("stopped once").expect("the load does not panic").into_report()
    }

    fn end(&mut self) -> Option<std::thread::Result<Tally>> {
        // Nobody listens any more when every worker has ended.
        let _ = self.stop.send(true);
        self.thread.take().map(JoinHandle::join)
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.end();
    }
}

async fn run(client: Client, mix: Mix, stopped: watch::Receiver<bool>, count: Arc<AtomicU64>) -> Tally {
    let began = Instant::now();
    let mut workers = JoinSet::new();
    for worker in 0..mix.workers() {
        let connections =
            if worker < mix.keep_alive_connections { Connections::Kept } else { Connections::New };
        let pace = Pace::of(mix, worker);
        workers.spawn(work(client.clone(), connections, pace, stopped.clone(), Arc::clone(&count)));
    }
    let mut all = Tally::default();
    while let Some(tally) = workers.join_next().await {
        all.add(tally.expect("a worker does not panic"));
    }
    all.seconds = began.elapsed().as_secs_f64();
    all
}

async fn work(
    client: Client,
    connections: Connections,
    mut pace: Pace,
    mut stopped: watch::Receiver<bool>,
    count: Arc<AtomicU64>,
) -> Tally {
    let mut tally = Tally::default();
    let mut connection = None;
    loop {
        tokio::select! {
            biased;
            // An error is the end of the owner, who wants no more either.
            _ = stopped.wait_for(|stopped| *stopped) => return tally,
            () = pace.next() => {}
        }
        let began = Instant::now();
        let outcome = client.request(&mut connection, connections).await;
        tally.note(outcome, began.elapsed());
        count.fetch_add(1, Ordering::Relaxed);
    }
}

/// When a worker's requests are due. What comes late is not made up for: this is constant load, not a benchmark.
struct Pace {
    interval: Option<tokio::time::Interval>,
}

impl Pace {
    fn of(mix: Mix, worker: usize) -> Pace {
        let interval = mix.pause().map(|pause| {
            // Spread over the pause, so that workers do not march in step.
            let share = f64::from(u32::try_from(worker).unwrap_or(0)) / mix.workers() as f64;
            let mut interval =
                tokio::time::interval_at(tokio::time::Instant::now() + pause.mul_f64(share), pause);
            interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
            interval
        });
        Pace { interval }
    }

    async fn next(&mut self) {
        match &mut self.interval {
            Some(interval) => {
                interval.tick().await;
            }
            None => tokio::task::yield_now().await,
        }
    }
}

#[cfg(test)]
mod tests;
