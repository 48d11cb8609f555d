//! The figures of a run, as a page and as JSON.

use std::path::PathBuf;

use serde_json::{Value, json};

use super::case::{Case, Logging};
use super::peer::{self, Peer};
use super::scene::Run;
use crate::bench::figures::Figures;
use crate::bench::machine;

/// The rounds of one peer in one case.
pub struct Series {
    pub peer: Peer,
    case: Case,
    threads: usize,
    logging: Logging,
    cpu_micros: Figures,
    scheduled_micros: Figures,
    rate: Figures,
    p50_ms: Figures,
    p99_ms: Figures,
    memory_mb: Figures,
}

impl Series {
    pub fn new(peer: Peer, case: Case, threads: usize, logging: Logging) -> Series {
        let none = Figures::default;
        Series {
            peer,
            case,
            threads,
            logging,
            cpu_micros: none(),
            scheduled_micros: none(),
            rate: none(),
            p50_ms: none(),
            p99_ms: none(),
            memory_mb: none(),
        }
    }

    pub fn add(&mut self, run: &Run) {
        self.cpu_micros.add(run.cpu_micros);
        self.scheduled_micros.add(run.scheduled_micros);
        self.rate.add(run.seen.rate);
        self.memory_mb.add(run.memory_mb);
        run.seen.p50_ms.into_iter().for_each(|p50| self.p50_ms.add(p50));
        run.seen.p99_ms.into_iter().for_each(|p99| self.p99_ms.add(p99));
    }

    pub fn title(&self) -> String {
        format!("{} {}", self.case.name(), self.peer.name())
    }
}

pub struct Report {
    pub series: Vec<Series>,
    /// With the access log on: the share of requests that left a line, in percent, for each run.
    pub logged: Vec<(Peer, f64)>,
    /// What was seen of other work before the run.
    pub busy: Option<String>,
    pub stolen_percent: f64,
    pub command: String,
    pub switchback: PathBuf,
}

impl Report {
    /// Processor time per request relative to another peer in the same case.
    fn ratio(&self, series: &Series, to: Peer) -> Option<f64> {
        let other = self.series.iter().find(|other| {
            other.peer == to
                && other.case == series.case
                && other.threads == series.threads
                && other.logging == series.logging
        })?;
        Some(series.cpu_micros.median()? / other.cpu_micros.median()?)
    }

    /// A cell for each of the others.
    fn ratio_cells(&self, series: &Series) -> String {
        let text =
            |to: &Peer| self.ratio(series, *to).map_or_else(|| "-".to_owned(), |ratio| format!("{ratio:.2}"));
        peer::OTHERS.iter().map(text).collect::<Vec<_>>().join(" | ")
    }

    pub fn markdown(&self) -> String {
        let versions: Vec<String> = peer::ALL.iter().map(|peer| peer.version(&self.switchback)).collect();
        let mut page = format!(
            "# The edge beside HAProxy, nginx and Varnish\n\n\
             Measured on {} by `{}`.\n\n\
             - Machine: {}; stolen by the host during the run: {:.1} %\n\
             - Versions: {}\n\
             - Clients, backend and proxy share the machine, so rates and latencies are of a crowded house. Processor \
             time per request of the proxy's whole process tree is the figure that counts; the ratio is that of the \
             medians in this run.\n\
             - On in all: timeouts, health checks, metrics, request ids and forwarded headers, kept connections to the \
             backend. Configurations: `bench/edge/`.\n\
             - Varnish is a cache, and passes everything through here: these are its costs as a proxy, and say nothing of \
             it as a cache. It gives a thread to each request, so in place of a number of threads it has that number of \
             processors. It always logs to memory; with the access log on, varnishncsa writes a file of it and is counted \
             with it.\n\
             - Each figure: median of the rounds (smallest–largest).\n",
            machine::today(),
            self.command,
            machine::words(),
            self.stolen_percent,
            versions.join("; "),
        );
        for peer in peer::ALL {
            let shares = self.logged.iter().filter(|(of, _)| *of == peer).map(|(_, share)| *share);
            if let Some(least) = shares.min_by(f64::total_cmp) {
                page.push_str(&format!(
                    "- Access log on: {} wrote a line for {least:.1} % of requests\n",
                    peer.name()
                ));
            }
        }
        if let Some(busy) = &self.busy {
            page.push_str(&format!(
                "\n**The machine was busy with something else ({busy}). These figures are for orientation only.**\n"
            ));
        }
        let columns = peer::OTHERS.map(|peer| format!("x {}", peer.name())).join(" | ");
        let rule = "---|".repeat(peer::OTHERS.len());
        page.push_str(&format!(
            "\n## In short\n\nCPU per request of the edge, relative to the others. Below 1 it is less.\n\n\
             | | threads | | {columns} |\n|---|---|---|{rule}\n",
        ));
        for series in self.series.iter().filter(|series| series.peer == Peer::Edge) {
            page.push_str(&format!(
                "| {} | {} | {} | {} |\n",
                series.case.title(),
                series.threads,
                series.logging,
                self.ratio_cells(series),
            ));
        }
        let mut group = None;
        for series in &self.series {
            let of = (series.case.name(), series.threads, series.logging);
            if group != Some(of) {
                group = Some(of);
                let threads =
                    if series.threads == 1 { "1 thread" } else { &format!("{} threads", series.threads) };
                page.push_str(&format!(
                    "\n## {}: {threads}, {}\n\n\
                     | | CPU per request, µs | {columns} | requests/s | p50, ms | p99, ms | memory, MB |\n\
                     |---|---|{rule}---|---|---|---|\n",
                    series.case.title(),
                    series.logging,
                ));
            }
            page.push_str(&format!(
                "| {} | {} | {} | {} | {} | {} | {} |\n",
                series.peer.name(),
                series.cpu_micros.text(1),
                self.ratio_cells(series),
                series.rate.text(0),
                series.p50_ms.text(2),
                series.p99_ms.text(2),
                series.memory_mb.text(1),
            ));
        }
        page
    }

    pub fn json(&self) -> Value {
        let series: Vec<Value> = self.series.iter().map(|series| self.json_of(series)).collect();
        json!({
            "date": machine::today(),
            "command": self.command,
            "machine": machine::description(),
            "busy": self.busy,
            "stolen_percent": self.stolen_percent,
            "versions": peer::ALL.iter().map(|peer| peer.version(&self.switchback)).collect::<Vec<_>>(),
            "series": series,
        })
    }

    fn json_of(&self, series: &Series) -> Value {
        json!({
            "peer": series.peer.name(),
            "case": series.case.name(),
            "threads": series.threads,
            "access_log": series.logging == Logging::On,
            "cpu_us_per_request": series.cpu_micros.json(),
            "scheduled_us_per_request": series.scheduled_micros.json(),
            "requests_per_second": series.rate.json(),
            "p50_ms": series.p50_ms.json(),
            "p99_ms": series.p99_ms.json(),
            "memory_mb": series.memory_mb.json(),
            "ratio_to_haproxy": self.ratio(series, Peer::HAProxy),
            "ratio_to_nginx": self.ratio(series, Peer::Nginx),
            "ratio_to_varnish": self.ratio(series, Peer::Varnish),
        })
    }
}
