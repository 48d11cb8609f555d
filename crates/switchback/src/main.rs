//! One binary and one manifest: carries a web application from one box to the front page of the internet.
//!
//! The command line a person types ([`cli`]), the daemon that holds an app up ([`daemon`]) and the roles it runs
//! ([`role`]), or runs alone ([`standalone`]), and the load generator ([`generate`]) are the same program. Here arguments, environment and signals are read, and nowhere else.

mod api;
mod cli;
mod daemon;
mod generate;
mod rehearse;
mod role;
mod scrape;
mod standalone;

fn main() -> std::process::ExitCode {
    cli::run(std::env::args_os())
}
