//! House tools, by `cargo xtask COMMAND`: the one door for people and for continuous integration.
//!
//! Real logic is here, in Rust, and not in scripts. It is the first thing a fresh clone compiles, so it needs little
//! more than the standard library.

mod bench;
mod consistency;
mod demo;
mod diagnose;
mod docs;
mod drills;
mod drivers;
mod failure;
mod flags;
mod house;
mod http;
mod load;
mod port;
mod setup;
mod shell;
mod sqlsmith;
mod test;
mod tidy;

use std::process::ExitCode;

use failure::{Failure, Result};
use flags::Flags;

const HELP: &str = "\
House tools.

cargo xtask setup [--yes]              install what the other commands need (Debian, Ubuntu)
cargo xtask demo [--detach] [--yes]    build everything and run examples/frontpage
cargo xtask test [--quick | --drills]  everything that must pass; --quick leaves out the drills, --drills runs
                                       only them: also the tests that take longest, and the drills
                                       on examples/frontpage
cargo xtask drills                     every drill of the product on examples/frontpage, once it is built
cargo xtask consistency [--seconds N] [--fault NAME]... [--stage N] [--seed S]
                                       whether clients of a database that is killed, stopped and switched over
                                       can believe what they are told; faults: all, none, primary-crash,
                                       primary-hang, follower-crash, follower-hang, switchover, daemon-crash,
                                       proxy-crash, disk-full
cargo xtask diagnose [--only CASE]     what a rehearsal says of faults put into a real app, on a quiet machine, and
                                       how often that is right
cargo xtask tidy                       the house rules
cargo xtask docs                       make the generated pages anew
cargo xtask sqlsmith [--queries N] [--seed N]
                                       statements that nobody thought of, through the proxy and to a standby
cargo xtask bench edge [--rounds N] [--seconds N] [--threads 1,2] [--only CASE] [--json FILE]
                                       [--program FILE] [--anyway]
cargo xtask bench failover [--fault crash|hang|switchover] [--rounds N] [--apart SECONDS] [--anyway]
                                       what writers see when the database's primary is lost
cargo xtask bench idle [--seconds N]   the daemon's CPU and memory while nothing happens
cargo xtask bench journey [--quick] [--rounds N] [--anyway]
                                       what a journey of examples/frontpage serves, gains and takes
cargo xtask bench pgproxy [--rounds N] [--seconds N] [--clients 1,16,200] [--split off|on|both] [--only LOAD]
                                       [--json FILE] [--program FILE] [--anyway]
cargo xtask bench report [--rounds N] [--anyway]
                                       what a report weighs, and how long a browser takes to draw it
cargo xtask bench up [--rounds N]      from nothing to the first 200
";

fn main() -> ExitCode {
    match dispatch(Flags::new(std::env::args().skip(1))) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("error: {failure}");
            ExitCode::from(failure.code())
        }
    }
}

fn dispatch(mut flags: Flags) -> Result {
    match flags.word().as_deref() {
        Some("setup") => {
            let consent = setup::Consent::from_flags(&mut flags);
            flags.end()?;
            setup::install(setup::Needs::TEST, consent)?;
            drivers::install()
        }
        Some("demo") => demo::run(flags),
        Some("test") => test::run(flags),
        Some("tidy") => {
            flags.end()?;
            tidy::run()
        }
        Some("docs") => {
            flags.end()?;
            docs::run()
        }
        Some("consistency") => consistency::run(flags),
        Some("diagnose") => diagnose::run(flags),
        Some("drills") => {
            flags.end()?;
            drills::run()
        }
        Some("sqlsmith") => sqlsmith::run(flags),
        Some("bench") => bench::run(flags),
        Some("help" | "--help" | "-h") => {
            print!("{HELP}");
            Ok(())
        }
        Some(other) => Err(Failure::usage(format!("no command `{other}`; `cargo xtask help` lists them"))),
        None => Err(Failure::usage("a command is missing; `cargo xtask help` lists them")),
    }
}
