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
    scheduled_visits: f64,
    not_offered: u64,
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
        self.scheduled_visits += round.scheduled_visits;
        self.not_offered += round.not_offered;
    }

    fn rate_error_percent(&self) -> f64 {
        (self.visits / self.wished_visits - 1.0) * 100.0
    }

    /// Visits of the seeds' own schedules that did not begin. Below zero: more began.
    fn left_out(&self) -> f64 {
        self.scheduled_visits - self.visits
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
        page.push_str(&format!(
            "\nArrivals are a Poisson process, so what begins differs from the rate by chance: one standard deviation \
             stands beside it. Of {} visits that the seeds have, {} did not begin; {} requests or visits were not offered.\n",
            steady.scheduled_visits,
            steady.left_out(),
            steady.not_offered,
        ));
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
                "scheduled_visits": steady.scheduled_visits,
                "left_out": steady.left_out(),
                "not_offered": steady.not_offered,
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_left_out_stands_on_the_page() {
        let round = |visits: f64, not_offered| run::Steady {
            cpu_us_per_request: 19.0,
            scheduled_us_per_request: 19.0,
            requests_per_second: 10_000.0,
            visits,
            wished_visits: 5_000.0,
            scheduled_visits: 5_010.0,
            not_offered,
            schedule_error_p99_us: 300.0,
            latency_p50_us: 150.0,
            latency_p99_us: 700.0,
            memory_mb: 10.0,
        };
        let mut steady = Steady::default();
        steady.add(round(5_010.0, 0));
        steady.add(round(5_008.0, 2));
        let report = Report {
            steady,
            crowd: run::Crowd { visitors: 1, connections: 1, memory_bytes: 1 },
            busy: None,
            stolen_percent: 0.0,
            command: String::new(),
            switchback: "true".into(),
            seconds: 20,
        };
        let said =
            "Of 10020 visits that the seeds have, 2 did not begin; 2 requests or visits were not offered.";
        assert!(report.markdown().contains(said), "{}", report.markdown());
        assert_eq!(report.json()["steady"]["left_out"], 2.0);
    }
}
