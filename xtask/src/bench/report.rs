//! What a report weighs, and how long a browser takes from opening it until all charts are drawn.
//!
//! The page says itself when it has drawn (`data-drawn-ms`), so that what is measured is what a reader waits for: reading the
//! file, the script, the figures, and every chart. A browser is started anew for each round.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use super::figures::Figures;
use super::machine;
use super::page;
use super::quiet::{self, Busy};
use crate::failure::{Failure, Result};
use crate::flags::Flags;
use crate::house;
use crate::setup;
use crate::shell;

const DEFAULT_ROUNDS: usize = 7;
const BROWSER: &str = "chromium";

/// What is promised of ten minutes of twenty series.
const MOST_MS: f64 = 1_000.0;
const MOST_KB: f64 = 1_000.0;

/// The pages: what they show, and how they are made.
const PAGES: &[(&str, &[&str])] = &[
    ("a rehearsal: 600 s, 6 classes, 5 tiers", &[]),
    ("a journey: 3 stages of 240 s, 6 classes, 5 tiers", &["--journey"]),
];

/// # Errors
/// When a page does not draw, or the machine is busy.
pub fn run(mut flags: Flags) -> Result {
    let rounds = flags.option("--rounds")?.unwrap_or(DEFAULT_ROUNDS).max(1);
    let busy = if flags.switch("--anyway") { Busy::Measure } else { Busy::Refuse };
    let consent = setup::Consent::from_flags(&mut flags);
    flags.end()?;
    setup::install(setup::Needs::BENCH_REPORT, consent)?;
    shell::run(shell::cargo().args([
        "build",
        "--quiet",
        "--release",
        "--locked",
        "-p",
        "rehearsal",
        "--example",
        "report_page",
    ]))?;
    let watch = quiet::must_be_quiet(busy)?;
    let mut rows = Vec::new();
    for (name, arguments) in PAGES {
        rows.push(measure(name, arguments, rounds)?);
    }
    let busy = watch.end();
    let report = Report { rows, busy, command: format!("cargo xtask bench report --rounds {rounds}") };
    print!("{}", report.markdown());
    page::publish("report", &report.markdown(), &report.json())
}

struct Report {
    rows: Vec<Row>,
    /// What was seen of other work before the run.
    busy: Option<String>,
    command: String,
}

struct Row {
    name: &'static str,
    kb: f64,
    charts: usize,
    /// Milliseconds.
    drawn: Figures,
}

fn measure(name: &'static str, arguments: &[&str], rounds: usize) -> Result<Row> {
    let folder = house::target().join("bench-report");
    std::fs::create_dir_all(&folder).map_err(Failure::while_doing(folder.display()))?;
    let path = folder.join("page.html");
    let maker = house::target().join("release/examples/report_page");
    shell::run(Command::new(maker).arg(&path).args(arguments))?;
    let length = std::fs::metadata(&path).map_err(Failure::while_doing(path.display()))?.len();
    let mut row = Row { name, kb: length as f64 / 1_000.0, charts: 0, drawn: Figures::default() };
    for _ in 0..rounds {
        let dom = dom(&path, &folder.join("profile"))?;
        row.charts = dom.matches("<canvas").count();
        let ms = dom.split_once("data-drawn-ms=\"").and_then(|(_, rest)| rest.split_once('"'));
        let ms = ms.and_then(|(ms, _)| ms.parse::<f64>().ok());
        match ms {
            Some(ms) if row.charts > 0 => row.drawn.add(ms),
            _ => {
                return Err(Failure::new(format!(
                    "{BROWSER} did not draw {}: look at it there",
                    path.display()
                )));
            }
        }
    }
    Ok(row)
}

/// The page as it stands after its script has run.
fn dom(page: &Path, profile: &PathBuf) -> Result<String> {
    // What a round before has cached would be no first opening.
    let _ = std::fs::remove_dir_all(profile);
    let mut command = Command::new(BROWSER);
    command.args(["--headless", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"]);
    command.args([
        "--disable-background-networking",
        "--disable-component-update",
        "--window-size=1280,2000",
    ]);
    if setup::is_root() {
        // Which it does not have as root, and says so.
        command.arg("--no-sandbox");
    }
    let mut flag = std::ffi::OsString::from("--user-data-dir=");
    flag.push(profile);
    command.arg(flag).arg("--dump-dom").arg(format!("file://{}", page.display()));
    shell::read(command.stdin(Stdio::null()))
}

impl Row {
    fn is_as_promised(&self) -> bool {
        self.kb <= MOST_KB && self.drawn.median().is_some_and(|ms| ms <= MOST_MS)
    }
}

impl Report {
    fn markdown(&self) -> String {
        let mut page = format!(
            "# Opening a report\n\n\
             Measured on {} by `{}`.\n\n\
             - Machine: {}\n\
             - Browser: {}, headless, started anew for each round\n\
             - Drawn: from opening the file until every chart is drawn, as the page itself says. Median of the rounds \
             (smallest–largest).\n",
            machine::today(),
            self.command,
            machine::words(),
            browser(),
        );
        if let Some(busy) = &self.busy {
            page.push_str(&format!(
                "\n**The machine was busy with something else ({busy}). These figures are for orientation only.**\n"
            ));
        }
        page.push_str(&format!(
            "\nPromised: {MOST_KB} KB and {MOST_MS} ms at most.\n\n\
             | page | KB | charts | drawn, ms | |\n|---|---|---|---|---|\n"
        ));
        for row in &self.rows {
            let kept = if row.is_as_promised() { "kept" } else { "missed" };
            page.push_str(&format!(
                "| {} | {:.0} | {} | {} | {kept} |\n",
                row.name,
                row.kb,
                row.charts,
                row.drawn.text(0)
            ));
        }
        page
    }

    fn json(&self) -> Value {
        let pages = self.rows.iter().map(|row| {
            json!({
                "page": row.name,
                "kb": row.kb,
                "charts": row.charts,
                "drawn_ms": row.drawn.json(),
                "as_promised": row.is_as_promised(),
            })
        });
        json!({
            "date": machine::today(),
            "command": self.command,
            "machine": machine::description(),
            "browser": browser(),
            "busy": self.busy,
            "promised": { "kb": MOST_KB, "drawn_ms": MOST_MS },
            "pages": pages.collect::<Vec<Value>>(),
        })
    }
}

fn browser() -> String {
    machine::said(Command::new(BROWSER).arg("--version"))
}
