//! `logs`: what everything says, by time. Reads the files; needs no daemon.

use std::io;

use local::output::{Logs, Query, Stranger};
use telemetry::log::{LogRecord, Stream as Said};

use super::Place;
use super::connect::App;
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
    refuse_strangers(&app, &logs, &names)?;
    let query = Query { only: names, since: None, limit: Some(lines) };
    let print = |record: &LogRecord| say::more_data(&if as_json { json(record)? } else { line(record) });
    if follow {
        return follow_on(&app, &logs, query, print);
    }
    let mut result = Ok(true);
    let read = logs.read(&query, |record| {
        if matches!(result, Ok(true)) {
            result = print(&record);
        }
    });
    read.map_err(|error| unreadable(&app, &error))?;
    result.map(drop)
}

/// Whoever misspells a name would wait for ever for what it says.
fn refuse_strangers(app: &App, logs: &Logs, names: &[String]) -> Result<(), Problem> {
    let stranger = logs.find_stranger(names).map_err(|error| unreadable(app, &error))?;
    let Some(Stranger { name, known }) = stranger else { return Ok(()) };
    let known: Vec<_> = known.into_iter().collect();
    let hint = match known.is_empty() {
        true => "nothing has said anything yet; `switchback status` shows what runs".to_owned(),
        false => format!("there are {}", known.join(", ")),
    };
    Err(Problem::usage(format!("nothing named `{name}` is in the logs")).hint(hint))
}

fn unreadable(app: &App, error: &io::Error) -> Problem {
    match error.kind() {
        io::ErrorKind::PermissionDenied => app.somebody_else(),
        _ => Problem::failed(format!("the logs cannot be read: {error}")),
    }
}

fn follow_on(
    app: &App,
    logs: &Logs,
    query: Query,
    print: impl Fn(&LogRecord) -> Result<bool, Problem>,
) -> Result<(), Problem> {
    let failed = |error: io::Error| unreadable(app, &error);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(failed)?;
    runtime.block_on(async {
        let mut follow = logs.follow(query).map_err(failed)?;
        while print(&follow.next().await.map_err(failed)?)? {}
        Ok(())
    })
}

fn json(record: &LogRecord) -> Result<String, Problem> {
    let text = serde_json::to_string(record).map_err(|error| Problem::failed(error.to_string()))?;
    Ok(text + "\n")
}

fn line(record: &LogRecord) -> String {
    let time = say::local_time_ms(record.time);
    let style = if record.stream == Said::Stderr { RED } else { DIM };
    let instance = paint(Stream::Out, style, &format!("{:<12}", record.instance));
    format!("{} {instance} {}\n", paint(Stream::Out, DIM, &time), record.line)
}
