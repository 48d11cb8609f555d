//! The figures of a run, as a page and as JSON.

use std::path::PathBuf;
use std::process::Command;

use serde_json::{Value, json};

use super::load::REQUESTS_PER_SECOND;
use super::run;
use crate::bench::figures::Figures;
use crate::bench::machine;

/// What it must reach.
const CPU_US: f64 = 20.0;
const SCHEDULE_ERROR_US: f64 = 1_000.0;
const CROWD_BYTES: u64 = 1 << 30;

/// The rounds of the steady load.
#[derive(Default)]
pub struct Steady {
    cpu_us: Figures,
    scheduled_us: Figures,
    rate: Figures,
    schedule_error_us: Figures,
    p50_us: Figures,
    p99_us: Figures,
    memory_mb: Figures,
    visits: f64,
    wished_visits: f64,
}

impl Steady {
    pub fn add(&mut self, round: run::Steady) {
        self.cpu_us.add(round.cpu_us_per_request);
        self.scheduled_us.add(round.scheduled_us_per_request);
        self.rate.add(round.requests_per_second);
        self.schedule_error_us.add(round.schedule_error_p99_us);
        self.p50_us.add(round.latency_p50_us);
        self.p99_us.add(round.latency_p99_us);
        self.memory_mb.add(round.memory_mb);
        self.visits += round.visits;
        self.wished_visits += round.wished_visits;
    }

    fn rate_error_percent(&self) -> f64 {
        (self.visits / self.wished_visits - 1.0) * 100.0
    }

    /// Of a Poisson count of so many.
    fn chance_percent(&self) -> f64 {
        100.0 / self.wished_visits.sqrt()
    }
}

pub struct Report {
    pub steady: Steady,
    pub crowd: run::Crowd,
    pub busy: Option<String>,
    pub stolen_percent: f64,
    pub command: String,
    pub switchback: PathBuf,
    pub seconds: u32,
}

impl Report {
    pub fn markdown(&self) -> String {
        let (steady, crowd) = (&self.steady, &self.crowd);
        let mut page = format!(
            "# The load generator\n\n\
             Measured on {} by `{}`.\n\n\
             - Machine: {}; stolen by the host during the run: {:.1} %\n\
             - Versions: {}; {}\n\
             - The app is nginx with a page of 1 KB, one worker, on the same machine; the generator has one thread.\n\
             - Each figure: median of the rounds (smallest–largest).\n",
            machine::today(),
            self.command,
            machine::words(),
            self.stolen_percent,
            machine::said(Command::new(&self.switchback).arg("--version")),
            machine::said(Command::new("nginx").arg("-v")),
        );
        if let Some(busy) = &self.busy {
            page.push_str(&format!(
                "\n**The machine was busy with something else ({busy}). These figures are for orientation only.**\n"
            ));
        }
        page.push_str(&format!(
            "\n## {REQUESTS_PER_SECOND} requests/s on kept connections, {} s\n\n\
             | | measured | wished |\n|---|---|---|\n\
             | processor time per request, µs | {} | at most {CPU_US} |\n\
             | the same by the scheduler's count, µs | {} | |\n\
             | requests/s | {} | {REQUESTS_PER_SECOND} |\n\
             | visits begun, of those that the rate integrates to, all rounds | {:+.2} % (chance: {:.2} %) | within chance |\n\
             | sent later than meant, p99, µs | {} | at most {SCHEDULE_ERROR_US} |\n\
             | latency p50, µs | {} | |\n\
             | latency p99, µs | {} | |\n\
             | memory, MB | {} | |\n",
            self.seconds,
            steady.cpu_us.text(1),
            steady.scheduled_us.text(1),
            steady.rate.text(0),
            steady.rate_error_percent(),
            steady.chance_percent(),
            steady.schedule_error_us.text(0),
            steady.p50_us.text(0),
            steady.p99_us.text(0),
            steady.memory_mb.text(1),
        ));
        page.push_str(
            "\nArrivals are a Poisson process, so what begins differs from the rate by chance: one standard deviation \
             stands beside it. None was left out.\n",
        );
        page.push_str(&format!(
            "\n## A crowd that reads\n\n\
             | visitors at once | connections | memory, MB | wished | per visitor, KB |\n|---|---|---|---|---|\n\
             | {} | {} | {:.0} | at most {} | {:.1} |\n",
            crowd.visitors,
            crowd.connections,
            crowd.memory_bytes as f64 / 1024.0 / 1024.0,
            CROWD_BYTES / 1024 / 1024,
            crowd.memory_bytes as f64 / 1024.0 / crowd.visitors as f64,
        ));
        page
    }

    pub fn json(&self) -> Value {
        let steady = &self.steady;
        json!({
            "date": machine::today(),
            "command": self.command,
            "machine": machine::description(),
            "busy": self.busy,
            "stolen_percent": self.stolen_percent,
            "steady": {
                "cpu_us_per_request": steady.cpu_us.json(),
                "scheduled_us_per_request": steady.scheduled_us.json(),
                "requests_per_second": steady.rate.json(),
                "rate_error_percent": steady.rate_error_percent(),
                "rate_chance_percent": steady.chance_percent(),
                "schedule_error_p99_us": steady.schedule_error_us.json(),
                "latency_p50_us": steady.p50_us.json(),
                "latency_p99_us": steady.p99_us.json(),
                "memory_mb": steady.memory_mb.json(),
            },
            "crowd": {
                "visitors": self.crowd.visitors,
                "connections": self.crowd.connections,
                "memory_bytes": self.crowd.memory_bytes,
            },
        })
    }
}
