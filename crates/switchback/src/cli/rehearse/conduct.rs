//! A rehearsal under way: what the generator and the tiers say, second by second, as one record.
//!
//! The generator is a process of its own for each stretch of load that is played. Between two stretches the record has
//! seconds without visits, so that everything in it counts from one moment.

use std::future::Future;
use std::ops::Range;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use rehearsal::generator::{End, Heard, Process, ProcessError};
use rehearsal::load::{Load, Phase};
use rehearsal::record::{Event, Record, Second, Tier, Validity, add_failed};
use rehearsal::report::live::{Expected, Live};

use super::observe::{Looks, Observer};
use crate::cli::say::{self, Problem, Stream};
use crate::cli::up::Interrupts;

/// Between two lines, where nobody watches in a terminal.
const LINE_SECONDS: u32 = 10;
/// How often an interrupt is looked for.
const LOOK: Duration = Duration::from_millis(50);
/// The subcommand that makes this program a generator.
const GENERATE: &[&str] = &["generate"];

/// What a record begins with.
pub struct Subject {
    pub app: String,
    pub shape: String,
    pub target: String,
    pub profile: String,
}

/// Plays loads, one after the other, and keeps what they gave.
pub struct Conductor<'a> {
    /// Its phases are those of each stretch.
    load: Load,
    program: PathBuf,
    began: Instant,
    record: Record,
    observer: Observer,
    view: View,
    interrupts: &'a Interrupts,
}

/// A stretch that was played.
pub struct Played {
    /// Indices of [`Record::seconds`].
    pub seconds: Range<usize>,
    pub end: End,
}

impl<'a> Conductor<'a> {
    /// `load` without phases. The record counts from `began`, as `observer` does.
    ///
    /// # Errors
    /// When this program does not know where it is.
    pub fn begin(
        subject: Subject,
        load: Load,
        observer: Observer,
        began: Instant,
        lasts: Duration,
        interrupts: &'a Interrupts,
    ) -> Result<Conductor<'a>, Problem> {
        let program = std::env::current_exe().map_err(|error| Problem::failed(error.to_string()))?;
        let expected = Expected {
            app: subject.app.clone(),
            profile: subject.profile.clone(),
            lasts_seconds: u32::try_from(lasts.as_secs()).unwrap_or(u32::MAX),
        };
        let record = Record {
            version: rehearsal::record::VERSION,
            app: subject.app,
            shape: subject.shape,
            target: subject.target,
            profile: subject.profile,
            seed: load.seed,
            began: jiff::Timestamp::now(),
            cut_short: None,
            validity: Validity::default(),
            failed: Vec::new(),
            found: None,
            seconds: Vec::new(),
            tiers: Vec::new(),
            events: Vec::new(),
        };
        let view = View::new(expected);
        Ok(Conductor { load, program, began, record, observer, view, interrupts })
    }

    /// Plays `phases` until they are over, or `until` is; whichever is first. An interrupt cuts the record short, and so does
    /// a generator that ends before its time. What makes this stretch invalid makes the record so.
    ///
    /// # Errors
    /// When no generator can be started, or it refuses the load.
    pub async fn play(
        &mut self,
        phases: Vec<Phase>,
        until: impl Future<Output = ()>,
    ) -> Result<Played, Problem> {
        let played = self.try_out(phases, until).await?;
        self.count(&played);
        self.doubt(&played.end.validity.faults);
        Ok(played)
    }

    /// As [`Conductor::play`], but that whoever calls it says whether what the generator says of itself counts: see
    /// [`Conductor::count`] and [`Conductor::doubt`].
    ///
    /// # Errors
    /// As [`Conductor::play`].
    pub async fn try_out(
        &mut self,
        phases: Vec<Phase>,
        until: impl Future<Output = ()>,
    ) -> Result<Played, Problem> {
        // The generator's seconds are whole seconds of the record.
        let offset = self.began.elapsed().as_secs() + 1;
        tokio::time::sleep(Duration::from_secs(offset).saturating_sub(self.began.elapsed())).await;
        let offset = u32::try_from(offset).unwrap_or(u32::MAX);
        let first = self.fill_up_to(offset);
        let load = Load { phases, ..self.load.clone() };
        let mut process = Process::start(&self.program, GENERATE, &load).await.map_err(no_generator)?;
        self.observer.generator(process.id());
        tokio::pin!(until);
        let mut is_told = false;
        loop {
            tokio::select! {
                heard = process.next() => match heard {
                    Ok(Heard::Second(second)) => {
                        let at = second.at + offset;
                        self.hear(Second { at, ..second });
                    }
                    Err(error) => {
                        // Also after it was told to end: the answers that were still out are not told.
                        let end = broken_off(error)?;
                        self.observer.generator(None);
                        let why = end.cut_short.as_deref().unwrap_or_default();
                        self.cut_short(&format!("the generator ended before its time: {why}"));
                        return Ok(Played { seconds: first..self.record.seconds.len(), end });
                    }
                    Ok(Heard::End(end)) => {
                        self.observer.generator(None);
                        if let Some(why) = end.cut_short.as_ref().filter(|_| !is_told) {
                            self.cut_short(&format!("the generator ended before its time: {why}"));
                        }
                        return Ok(Played { seconds: first..self.record.seconds.len(), end });
                    }
                },
                () = &mut until, if !is_told => {
                    is_told = true;
                    process.stop().await;
                }
                () = tokio::time::sleep(LOOK) => match self.interrupts.count() {
                    0 => {}
                    1 if is_told => {}
                    1 => {
                        is_told = true;
                        self.cut_short("it was interrupted");
                        process.stop().await;
                    }
                    // Whoever asks twice does not want to wait for the last answers.
                    _ => return Err(Problem::Said(crate::cli::up::INTERRUPTED)),
                },
            }
        }
    }

    /// `None`: it was interrupted before.
    pub async fn unless_interrupted<T>(&self, work: impl Future<Output = T>) -> Option<T> {
        tokio::select! {
            done = work => Some(done),
            () = self.interrupts.heard() => None,
        }
    }

    /// What the generator used and missed in a stretch is the record's, the worst of all, and so is what failed.
    pub fn count(&mut self, played: &Played) {
        let (all, one) = (&mut self.record.validity, &played.end.validity);
        all.schedule_error_p99_us = all.schedule_error_p99_us.max(one.schedule_error_p99_us);
        all.cpu_us_per_request = all.cpu_us_per_request.max(one.cpu_us_per_request);
        all.cpu_share = all.cpu_share.max(one.cpu_share);
        all.stolen = all.stolen.max(one.stolen);
        all.not_offered += one.not_offered;
        for failed in &played.end.failed {
            add_failed(&mut self.record.failed, failed.clone());
        }
    }

    /// Makes the record invalid, where there is a fault.
    pub fn doubt(&mut self, faults: &[String]) {
        // Those of one stretch say it as well as many of the same kind.
        if self.record.validity.faults.is_empty() {
            self.record.validity.faults = faults.to_vec();
        }
    }

    /// Seconds in which nothing was played. The index of the next.
    fn fill_up_to(&mut self, at: u32) -> usize {
        let next = self.record.seconds.last().map_or(0, |last| last.at + 1);
        self.record.seconds.extend((next..at).map(|at| Second { at, ..Second::default() }));
        self.record.seconds.len()
    }

    fn hear(&mut self, second: Second) {
        let tiers = self.observer.latest();
        self.view.hear(&second, tiers.iter().map(|(name, second)| (name.as_str(), second)));
        self.record.seconds.push(second);
    }

    pub fn cut_short(&mut self, why: &str) {
        self.record.cut_short.get_or_insert_with(|| why.to_owned());
    }

    pub fn was_cut_short(&self) -> bool {
        self.record.cut_short.is_some()
    }

    /// See [`Record::is_proof`].
    pub fn is_proof(&self) -> bool {
        self.record.is_proof()
    }

    /// Lets the record be whole although a stretch was cut short, when that is no part of what it is of. Why it was.
    pub fn go_on(&mut self) -> Option<String> {
        self.record.cut_short.take()
    }

    /// What the tiers did last.
    pub fn looks(&self) -> Looks {
        self.observer.looks()
    }

    /// Something that happened now.
    pub fn note(&mut self, text: impl Into<String>) {
        let text = text.into();
        self.view.say(&text);
        let at_ms = u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.record.events.push(Event { at_ms, text });
    }

    pub fn seconds(&self, played: &Played) -> &[Second] {
        &self.record.seconds[played.seconds.clone()]
    }

    /// What the tiers said so far.
    pub fn tiers(&self) -> Vec<Tier> {
        self.observer.tiers()
    }

    /// The statement that took most of the primary's time so far.
    pub fn top_statement(&self) -> Option<String> {
        self.observer.top_statement()
    }

    pub fn seed(&self) -> u64 {
        self.load.seed
    }

    /// All of it.
    pub fn end(mut self) -> Record {
        self.view.clear();
        let (tiers, events) = self.observer.end();
        self.record.tiers = tiers;
        self.record.events.extend(events);
        self.record.events.sort_by_key(|event| event.at_ms);
        self.record
    }
}

fn no_generator(error: ProcessError) -> Problem {
    Problem::failed(local::chain(&error))
}

/// A generator that was killed has told its seconds up to then, and they stand.
fn broken_off(error: ProcessError) -> Result<End, Problem> {
    match error {
        ProcessError::Ended(_) | ProcessError::Output(_) => Ok(End {
            validity: Validity::default(),
            failed: Vec::new(),
            cut_short: Some(local::chain(&error)),
        }),
        ProcessError::Start(_) | ProcessError::Refused(_) => Err(no_generator(error)),
    }
}

/// What people see meanwhile: a few lines drawn over and over in a terminal, a line now and then elsewhere.
struct View {
    live: Live,
    bar: ProgressBar,
}

impl View {
    fn new(expected: Expected) -> View {
        let bar = ProgressBar::new_spinner();
        if Stream::Err.is_terminal() {
            let style = ProgressStyle::with_template("{msg}");
            bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_spinner()));
        } else {
            bar.set_draw_target(ProgressDrawTarget::hidden());
        }
        View { live: Live::new(expected), bar }
    }
}

impl View {
    fn hear<'t>(
        &mut self,
        second: &Second,
        tiers: impl Iterator<Item = (&'t str, &'t rehearsal::record::TierSecond)>,
    ) {
        self.live.hear(second, tiers);
        if Stream::Err.is_terminal() {
            self.bar.set_message(self.live.view(columns()));
        } else if let Some(line) = self.live.line(LINE_SECONDS) {
            say::talk(&line);
        }
    }

    fn say(&self, text: &str) {
        self.bar.suspend(|| say::talk(text));
    }

    fn clear(&self) {
        self.bar.finish_and_clear();
    }
}

/// Of the terminal on standard error.
fn columns() -> usize {
    const UNKNOWN: u16 = 80;
    const LEAST: u16 = 40;
    let size = rustix::termios::tcgetwinsize(std::io::stderr());
    let columns = size.map_or(0, |size| size.ws_col);
    usize::from(if columns == 0 { UNKNOWN } else { columns.max(LEAST) })
}
