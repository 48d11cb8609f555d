//! Events of the daemon as they happen: a live line in a terminal, plain lines otherwise.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use local::machine::Event;
use serde::de::DeserializeOwned;

use super::connect::App;
use super::say::{self, BOLD, DIM, GREEN, Problem, RED, Stream, YELLOW, paint};
use super::up::{INTERRUPTED, Interrupts, wait_for};
use crate::api::Request;

/// What the daemon answers to work that may take long. An interrupt ends only the waiting.
///
/// # Errors
/// When it fails; [`INTERRUPTED`] after an interrupt, of which everything is said.
pub fn ask<T>(app: &App, request: Request) -> Result<T, Problem>
where
    T: DeserializeOwned + Send + 'static,
{
    let answer = wait_for(app, request, &Interrupts::listen()?, 1);
    if let Err(Problem::Said(INTERRUPTED)) = answer {
        say::talk(
            "interrupted: the daemon goes on with it; `switchback status` shows how far it is, `switchback down --now` \
             ends it and stops the app",
        );
    }
    answer
}

/// Says what happens. Dropping it clears the live line.
pub struct Progress {
    bar: ProgressBar,
}

impl Progress {
    pub fn new() -> Progress {
        let bar = ProgressBar::new_spinner();
        if Stream::Err.is_terminal() {
            let style = ProgressStyle::with_template("{spinner} {wide_msg} {elapsed:.dim}");
            bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_spinner()));
            bar.enable_steady_tick(Duration::from_millis(100));
        } else {
            bar.set_draw_target(ProgressDrawTarget::hidden());
        }
        Progress { bar }
    }

    /// Above the live line.
    pub fn say(&self, line: &str) {
        self.bar.suspend(|| say::talk(line));
    }

    pub fn hear(&self, event: Event) {
        match event {
            Event::Started { step, of, what } => {
                self.bar.reset_elapsed();
                self.bar.set_message(format!("[{step}/{of}] {what}"));
            }
            Event::Done { step, of, what, took_ms } => {
                let took = if took_ms >= 100 {
                    format!(" ({:.1} s)", took_ms as f64 / 1_000.0)
                } else {
                    String::new()
                };
                let took = paint(Stream::Err, DIM, &took);
                self.say(&format!("{} [{step}/{of}] {what}{took}", paint(Stream::Err, GREEN, "done")));
                self.bar.set_message("");
            }
            Event::Failed { step, of, what, reason, .. } => {
                self.say(&format!("{} [{step}/{of}] {what}: {reason}", paint(Stream::Err, RED, "failed")));
            }
            Event::Undone { what } => {
                self.say(&format!("{} {what}", paint(Stream::Err, YELLOW, "taking back:")));
            }
            Event::BuildLine { line } if Stream::Err.is_terminal() => {
                self.bar.set_message(format!("building: {}", line.trim()));
            }
            Event::BuildLine { line } => self.say(&format!("build | {line}")),
            Event::Note { text } => {
                self.bar.reset_elapsed();
                self.bar.set_message(text.clone());
                self.say(&format!("{} {text}", paint(Stream::Err, BOLD, "note:")));
            }
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}
