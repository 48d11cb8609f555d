//! `logs`: what everything says, by time. Reads the files; needs no daemon.

use jiff::tz::TimeZone;
use local::output::{Logs, Query};
use telemetry::log::{LogRecord, Stream as Said};

use super::Place;
use super::say::{self, DIM, Problem, RED, Stream, paint};

pub fn logs(
    place: &Place,
    names: Vec<String>,
    follow: bool,
    lines: usize,
    as_json: bool,
) -> Result<(), Problem> {
    let app = place.app()?;
    let logs = Logs::at(app.state.logs());
    if !app.state.root().exists() {
        return Err(Problem::failed("nothing was ever up here").hint("`switchback up` brings the app up"));
    }
    let query = Query { only: names, since: None, limit: Some(lines) };
    let zone = TimeZone::system();
    let print = |record: &LogRecord| say::data(&if as_json { json(record)? } else { line(record, &zone) });
    if follow {
        return follow_on(&logs, query, print);
    }
    let mut result = Ok(());
    let read = logs.read(&query, |record| {
        if result.is_ok() {
            result = print(&record);
        }
    });
    read.map_err(|error| Problem::failed(format!("the logs cannot be read: {error}")))?;
    result
}

fn follow_on(
    logs: &Logs,
    query: Query,
    print: impl Fn(&LogRecord) -> Result<(), Problem>,
) -> Result<(), Problem> {
    let failed = |error: std::io::Error| Problem::failed(format!("the logs cannot be read: {error}"));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(failed)?;
    runtime.block_on(async {
        let mut follow = logs.follow(query).map_err(failed)?;
        loop {
            print(&follow.next().await.map_err(failed)?)?;
        }
    })
}

fn json(record: &LogRecord) -> Result<String, Problem> {
    let text = serde_json::to_string(record).map_err(|error| Problem::failed(error.to_string()))?;
    Ok(text + "\n")
}

fn line(record: &LogRecord, zone: &TimeZone) -> String {
    let time = record.time.to_zoned_datetime(zone.clone()).strftime("%T%.3f").to_string();
    let style = if record.stream == Said::Stderr { RED } else { DIM };
    let instance = paint(Stream::Out, style, &format!("{:<12}", record.instance));
    format!("{} {instance} {}\n", paint(Stream::Out, DIM, &time), record.line)
}
