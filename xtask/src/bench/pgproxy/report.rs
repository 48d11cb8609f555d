//! The figures of a run, as a page and as JSON.

use std::path::PathBuf;

use serde_json::{Value, json};

use super::load::{Load, Split};
use super::peer::{self, POOL, Peer, SESSIONS};
use super::scene::{Idle, Run};
use crate::bench::figures::Figures;
use crate::bench::machine;

/// The rounds of one peer under one load.
pub struct Series {
    pub peer: Peer,
    load: Load,
    clients: u32,
    split: Split,
    cpu_micros: Figures,
    scheduled_micros: Figures,
    rate: Figures,
    p50_ms: Figures,
    p99_ms: Figures,
    /// More than without a proxy, in the same round.
    added_p50_ms: Figures,
    memory_mb: Figures,
    on_replica: Figures,
}

impl Series {
    pub fn new(peer: Peer, load: Load, clients: u32, split: Split) -> Series {
        let none = Figures::default;
        Series {
            peer,
            load,
            clients,
            split,
            cpu_micros: none(),
            scheduled_micros: none(),
            rate: none(),
            p50_ms: none(),
            p99_ms: none(),
            added_p50_ms: none(),
            memory_mb: none(),
            on_replica: none(),
        }
    }

    /// `direct_p50_ms`: without a proxy, in the same round.
    pub fn add(&mut self, run: &Run, direct_p50_ms: Option<f64>) {
        self.rate.add(run.seen.rate);
        self.p50_ms.add(run.seen.p50_ms);
        self.p99_ms.add(run.seen.p99_ms);
        run.cpu_micros.into_iter().for_each(|cpu| self.cpu_micros.add(cpu));
        run.scheduled_micros.into_iter().for_each(|cpu| self.scheduled_micros.add(cpu));
        run.memory_mb.into_iter().for_each(|memory| self.memory_mb.add(memory));
        run.on_replica.into_iter().for_each(|share| self.on_replica.add(share));
        direct_p50_ms.into_iter().for_each(|direct| self.added_p50_ms.add(run.seen.p50_ms - direct));
    }

    pub fn title(&self) -> String {
        format!(
            "{}, {} clients, {}, {}",
            self.load.name(),
            self.clients,
            self.split.title(),
            self.peer.name()
        )
    }
}

pub struct Report {
    pub series: Vec<Series>,
    pub idle: Vec<(Split, Idle)>,
    /// What a peer could not do.
    pub failures: Vec<String>,
    /// What was seen of other work before the run.
    pub busy: Option<String>,
    pub stolen_percent: f64,
    pub command: String,
    pub switchback: PathBuf,
}

impl Report {
    /// Processor time per query relative to another peer under the same load; where there is a replica that it cannot use,
    /// to its figure with the primary alone.
    fn ratio(&self, series: &Series, to: Peer) -> Option<f64> {
        let split = if to.can(series.split) { series.split } else { Split::Off };
        let other = self.series.iter().find(|other| {
            other.peer == to
                && other.load == series.load
                && other.clients == series.clients
                && other.split == split
        })?;
        Some(series.cpu_micros.median()? / other.cpu_micros.median()?)
    }

    fn ratio_text(&self, series: &Series, to: Peer) -> String {
        self.ratio(series, to).map_or("-".to_owned(), |ratio| format!("{ratio:.2}"))
    }

    pub fn markdown(&self) -> String {
        let mut page = self.head();
        if let Some(busy) = &self.busy {
            page.push_str(&format!(
                "\n**The machine was busy with something else ({busy}). These figures are for orientation only.**\n"
            ));
        }
        if !self.failures.is_empty() {
            page.push_str("\nNot measured to the end, because it failed:\n\n");
            for failure in &self.failures {
                page.push_str(&format!("- {}\n", failure.lines().next().unwrap_or_default()));
            }
        }
        page.push_str(&self.in_short());
        page.push_str(&self.added_latency());
        page.push_str(&self.idle_clients());
        let mut group = None;
        for series in &self.series {
            let of = (series.load, series.clients, series.split);
            if group != Some(of) {
                group = Some(of);
                page.push_str(&format!(
                    "\n## {}: {}, {}\n\n\
                     | | CPU per query, µs | x PgBouncer | x pgpool-II | transactions/s | p50, ms | p99, ms | \
                     memory, MB | on the replica, % |\n|---|---|---|---|---|---|---|---|---|\n",
                    series.load.title(),
                    clients_text(series.clients),
                    series.split.title(),
                ));
            }
            page.push_str(&format!(
                "| {} | {} | {} | {} | {} | {} | {} | {} | {} |\n",
                series.peer.name(),
                series.cpu_micros.text(1),
                self.ratio_text(series, Peer::PgBouncer),
                self.ratio_text(series, Peer::Pgpool),
                series.rate.text(0),
                series.p50_ms.text(3),
                series.p99_ms.text(3),
                series.memory_mb.text(1),
                series.on_replica.text(0),
            ));
        }
        page
    }

    fn head(&self) -> String {
        format!(
            "# pgproxy beside PgBouncer and pgpool-II\n\n\
             Measured on {} by `{}`.\n\n\
             - Machine: {}; stolen by the host during the run: {:.1} %\n\
             - Versions: {}\n\
             - Clients (pgbench), PostgreSQL and proxy share the machine, so rates and latencies are of a crowded \
             house. Processor time per query of the proxy's whole process tree is the figure that counts; the ratio \
             is that of the medians in this run. Of TPC-B's seven queries BEGIN and END are two.\n\
             - Figures are of a window in the middle of a run: logins are not in them.\n\
             - PostgreSQL writes without fsync. Clients come by TCP and log in by SCRAM, proxies reach PostgreSQL by its \
             Unix socket; direct is pgbench at PostgreSQL's own TCP port.\n\
             - switchback and PgBouncer share {POOL} connections among all clients (transaction pooling); pgpool-II has a \
             process and a connection for each of up to {SESSIONS}. Configurations: `bench/pgproxy/`.\n\
             - PgBouncer before 1.21 knows no prepared statements in transaction pooling. For the prepared load it pools \
             sessions, a connection for each client.\n\
             - PgBouncer cannot tell reads from writes, so it is not measured where there is a replica; there the ratio \
             to it is to its figure with the primary alone. The replica's share of transactions is what \
             both say in pg_stat_database, which is some seconds late, and so about right.\n\
             - Each figure: median of the rounds (smallest–largest).\n",
            machine::today(),
            self.command,
            machine::words(),
            self.stolen_percent,
            self.versions().join("; "),
        )
    }

    fn versions(&self) -> Vec<String> {
        peer::ALL.iter().map(|peer| peer.version(&self.switchback)).collect()
    }

    fn in_short(&self) -> String {
        let mut page =
            "\n## In short\n\nCPU per query of switchback, relative to the others. Below 1 it is less.\n\n\
                        | | clients | | x PgBouncer | x pgpool-II |\n|---|---|---|---|---|\n"
                .to_owned();
        for series in self.series.iter().filter(|series| series.peer == Peer::Switchback) {
            page.push_str(&format!(
                "| {} | {} | {} | {} | {} |\n",
                series.load.title(),
                series.clients,
                series.split.title(),
                self.ratio_text(series, Peer::PgBouncer),
                self.ratio_text(series, Peer::Pgpool),
            ));
        }
        page
    }

    fn added_latency(&self) -> String {
        let mut page = "\n## What a proxy adds to the p50 of one client, ms\n\n| | | switchback | PgBouncer | pgpool-II |\n\
                        |---|---|---|---|---|\n"
            .to_owned();
        let ours = |series: &&Series| series.peer == Peer::Switchback && series.clients == 1;
        for series in self.series.iter().filter(ours) {
            let of = |peer: Peer| {
                let is_it = |other: &&Series| {
                    other.peer == peer
                        && other.load == series.load
                        && other.clients == 1
                        && other.split == series.split
                };
                self.series.iter().find(is_it).map_or("-".to_owned(), |other| other.added_p50_ms.text(3))
            };
            let figures = peer::PROXIES.map(of).join(" | ");
            page.push_str(&format!("| {} | {} | {figures} |\n", series.load.title(), series.split.title()));
        }
        page
    }

    fn idle_clients(&self) -> String {
        let mut page = "\n## Memory of clients that do nothing\n\nMeasured once, of proxies that have just started (Pss). \
                        pgpool-II's processes stand before any client comes, so most of it is in the first figure.\n\n\
                        | | | without clients, MB | per 1,000 clients, MB | clients |\n|---|---|---|---|---|\n"
            .to_owned();
        for (split, idle) in &self.idle {
            page.push_str(&format!(
                "| {} | {} | {:.1} | {:.1} | {} |\n",
                idle.peer.name(),
                split.title(),
                idle.at_rest_mb,
                idle.per_thousand_mb,
                idle.clients
            ));
        }
        page
    }

    pub fn json(&self) -> Value {
        let series: Vec<Value> = self.series.iter().map(|series| self.json_of(series)).collect();
        let idle = self.idle.iter().map(|(split, idle)| {
            json!({
                "peer": idle.peer.name(),
                "replica": *split == Split::On,
                "clients": idle.clients,
                "memory_at_rest_mb": idle.at_rest_mb,
                "memory_per_thousand_clients_mb": idle.per_thousand_mb,
            })
        });
        json!({
            "date": machine::today(),
            "command": self.command,
            "machine": machine::description(),
            "busy": self.busy,
            "stolen_percent": self.stolen_percent,
            "versions": self.versions(),
            "failures": self.failures,
            "series": series,
            "idle_clients": idle.collect::<Vec<Value>>(),
        })
    }

    fn json_of(&self, series: &Series) -> Value {
        json!({
            "peer": series.peer.name(),
            "load": series.load.name(),
            "clients": series.clients,
            "replica": series.split == Split::On,
            "cpu_us_per_query": series.cpu_micros.json(),
            "scheduled_us_per_query": series.scheduled_micros.json(),
            "transactions_per_second": series.rate.json(),
            "p50_ms": series.p50_ms.json(),
            "p99_ms": series.p99_ms.json(),
            "added_p50_ms": series.added_p50_ms.json(),
            "memory_mb": series.memory_mb.json(),
            "on_replica_percent": series.on_replica.json(),
            "ratio_to_pgbouncer": self.ratio(series, Peer::PgBouncer),
            "ratio_to_pgpool": self.ratio(series, Peer::Pgpool),
        })
    }
}

fn clients_text(clients: u32) -> String {
    if clients == 1 { "1 client".to_owned() } else { format!("{clients} clients") }
}
