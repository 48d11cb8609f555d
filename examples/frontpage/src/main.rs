//! Frontpage: people submit links, vote and talk; the best of the moment comes first.
//!
//! `frontpage` serves, `frontpage migrate` prepares the database. Two variables configure it: `PORT` and
//! `DATABASE_URL`. It keeps nothing in memory that another instance would miss, so any number of them may run.

mod config;
mod db;
mod error;
mod migrate;
mod model;
mod secret;
mod serve;
mod text;
mod view;
mod web;

use std::process::ExitCode;

const USAGE: &str = "usage: frontpage [serve | migrate]\n\
    \n\
    serve     answer HTTP on $PORT (what happens without an argument)\n\
    migrate   bring the schema of $DATABASE_URL up to date, and fill an empty one with sample data";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let done = match arguments.as_slice() {
        [] | ["serve"] => config::Serve::from_environment().and_then(serve::run),
        ["migrate"] => config::database_from_environment().and_then(migrate::run),
        ["help" | "--help" | "-h"] => {
            println!("{USAGE}");
            Ok(())
        }
        _ => {
            eprintln!("{USAGE}");
            return ExitCode::from(2);
        }
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(problem) => {
            eprintln!("frontpage: {problem}");
            ExitCode::FAILURE
        }
    }
}
