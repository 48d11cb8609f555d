//! The command line: what a person types, and how answers are said.
//!
//! Data goes to stdout, talk to stderr. Exit codes: 0 done, 1 failed, 2 wrong usage or manifest, 3 refused for safety,
//! 130 interrupted, while the daemon goes on or before it was asked for anything.

mod backup;
mod connect;
mod deploy;
mod down;
mod drill;
mod failover;
mod intervene;
mod load;
mod logs;
mod manifest;
mod observe;
mod plan;
mod probe;
mod progress;
mod rehearse;
mod restart;
mod say;
mod status;
mod supervised;
mod up;
mod upgrade;
mod wal;
mod why;

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use model::{NodeId, RecoveryTarget, ReleaseId, ResourceId};

use crate::daemon::{self, DaemonArgs, Life};
use crate::generate;
use crate::role::{self, RoleArgs};
use crate::standalone::{self, StandaloneArgs};
use say::Problem;

#[derive(Debug, Parser)]
#[command(
    name = "switchback",
    version,
    about = "Carries a web application from one box to the front page of the internet, stage by stage.",
    after_help = "Begin with `switchback init`, then `switchback up`."
)]
struct Cli {
    #[command(flatten)]
    place: Place,
    #[command(subcommand)]
    command: Command,
}

/// Which app.
#[derive(Debug, Clone, clap::Args)]
pub struct Place {
    /// The app's folder.
    #[arg(short = 'C', long = "directory", value_name = "DIR", default_value = ".", global = true)]
    directory: PathBuf,
    /// Where everything of the app is kept [default: .switchback in the app's folder].
    #[arg(long, value_name = "DIR", global = true)]
    state_dir: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Look at the folder and write a switchback.toml of a few lines
    Init {
        /// Print it instead of writing it
        #[arg(long)]
        print: bool,
    },
    /// Report every problem of the manifest at once
    Check {
        /// Say it as JSON, for programs
        #[arg(long)]
        json: bool,
    },
    /// Show the resource graph that the manifest expands to
    Explain {
        /// Say it as JSON, for programs
        #[arg(long)]
        json: bool,
    },
    /// Run the app at its stage
    Up {
        /// Return when the app answers, and leave it running
        #[arg(long)]
        detach: bool,
        /// Be the daemon, for a service manager that starts it again when it ends; SIGTERM leaves the app running
        #[arg(long, conflicts_with_all = ["detach", "destroy", "crash_at"])]
        supervised: bool,
        /// Delete the data of something that is no longer in the manifest
        #[arg(long, value_name = "NAME")]
        destroy: Vec<ResourceId>,
        /// Kill the daemon at a step of the plan (to prove that the next one goes on)
        #[arg(long, hide = true)]
        crash_at: Option<String>,
    },
    /// Show what would change, why, and what it would interrupt
    Plan {
        /// Write the plan to a file, for `apply`
        #[arg(long, value_name = "FILE")]
        out: Option<PathBuf>,
        /// Say it as JSON, for programs
        #[arg(long)]
        json: bool,
        /// Plan to delete the data of something that is no longer in the manifest
        #[arg(long, value_name = "NAME")]
        destroy: Vec<ResourceId>,
    },
    /// Carry a plan out: one from a file, or a new one from the manifest
    Apply {
        /// A plan that `plan --out` has written, carried out exactly [default: a new one, from the manifest]
        file: Option<PathBuf>,
        /// Do not ask
        #[arg(long)]
        yes: bool,
        /// Delete the data of something that is no longer in the manifest
        #[arg(long, value_name = "NAME")]
        destroy: Vec<ResourceId>,
    },
    /// Move to another stage: rewrites one line of the manifest, plans, applies
    Stage {
        /// The stage to move to
        #[arg(value_parser = plan::stage_number)]
        number: u8,
        /// Do not ask
        #[arg(long)]
        yes: bool,
    },
    /// Build a new release and roll it out
    Deploy {
        /// Say it as JSON, for programs
        #[arg(long)]
        json: bool,
    },
    /// Go back to an earlier release, by default the one before
    Rollback {
        /// One of those that `rollback --list` shows [default: the one that served before]
        release: Option<ReleaseId>,
        /// Show the releases that are kept
        #[arg(long, conflicts_with = "release")]
        list: bool,
        /// Say it as JSON, for programs
        #[arg(long)]
        json: bool,
    },
    /// Show what runs
    Status {
        /// Say it as JSON, for programs
        #[arg(long)]
        json: bool,
    },
    /// Show what the app, the database and the roles say, by time
    Logs {
        /// A service (`web`), an instance (`web.1`), `db`, `edge`; all by default
        names: Vec<String>,
        /// Go on with what they say from now on
        #[arg(short, long)]
        follow: bool,
        /// How many lines from the past
        #[arg(short = 'n', long, default_value_t = 100)]
        lines: usize,
        /// Say it as JSON, for programs
        #[arg(long)]
        json: bool,
    },
    /// Show why the last decisions were taken
    Why {
        /// How many decisions, the newest last
        #[arg(short = 'n', long, default_value_t = 20)]
        lines: usize,
        /// Say it as JSON, for programs
        #[arg(long)]
        json: bool,
    },
    /// Put this program in the place of the one that runs, without a failed request
    Upgrade,
    /// Stop everything in order, and keep the data
    Down {
        /// Delete the app's data, releases and logs, too; the app's name must be typed
        #[arg(long)]
        destroy: bool,
        /// The app's name, in place of typing it
        #[arg(long, value_name = "APP", requires = "destroy")]
        yes: Option<String>,
        /// Kill instances at once
        #[arg(long)]
        now: bool,
    },
    /// Print Prometheus metrics of the edge and the proxy
    Metrics,
    /// Let a standby take over from the database's primary, without losing anything
    Failover {
        /// The node that takes over, by default the first standby
        #[arg(long, value_name = "NODE")]
        to: Option<NodeId>,
        /// The database
        #[arg(long, value_name = "NAME", default_value = "db")]
        database: ResourceId,
        /// Say it as JSON, for programs
        #[arg(long)]
        json: bool,
    },
    /// Restart the nodes of the database one after the other, as after an update of PostgreSQL
    Restart {
        /// The database
        #[arg(long, value_name = "NAME", default_value = "db")]
        database: ResourceId,
        /// Say it as JSON, for programs
        #[arg(long)]
        json: bool,
    },
    /// Make a copy of the database now, or show those that there are
    Backup {
        #[command(subcommand)]
        show: Option<BackupCommand>,
        /// The database
        #[arg(long, value_name = "NAME", default_value = "db", global = true)]
        database: ResourceId,
        /// Say it as JSON, for programs
        #[arg(long, global = true)]
        json: bool,
    },
    /// Bring the database back to an earlier moment; what it is now is kept aside
    Restore {
        /// `latest`, or a time such as 2026-11-25T16:00:00Z or "2026-11-25 16:00"
        #[arg(long, value_name = "TIME", value_parser = backup::target, required_unless_present = "forget_replaced")]
        to: Option<RecoveryTarget>,
        /// From a folder of backups that is not this database's own: of a lost machine, or of another installation of the app
        #[arg(long, value_name = "DIR", value_parser = backup::folder, requires = "to")]
        from: Option<PathBuf>,
        /// Delete the data that earlier restores have put aside
        #[arg(long, conflicts_with = "to")]
        forget_replaced: bool,
        /// The database
        #[arg(long, value_name = "NAME", default_value = "db")]
        database: ResourceId,
        /// Do not ask
        #[arg(long)]
        yes: bool,
        /// Say it as JSON, for programs
        #[arg(long)]
        json: bool,
    },
    /// Break something on purpose and report what clients saw
    Drill {
        /// What to break
        name: drill::Drill,
        /// Of `zone-loss`: which zone [default: that of the database's primary]
        #[arg(long)]
        zone: Option<String>,
        /// Say it as JSON, for programs
        #[arg(long)]
        json: bool,
        /// Seconds of load around the fault
        #[arg(long, default_value_t = 10)]
        seconds: u64,
        /// What clients ask for
        #[arg(long, default_value = "/")]
        path: String,
    },
    /// Print what each tier did in each of the next seconds, as JSON
    #[command(hide = true)]
    Observe {
        #[arg(long, default_value_t = 10)]
        seconds: u32,
        /// A process of the load
        #[arg(long = "generator", value_name = "PID")]
        generators: Vec<u32>,
    },
    /// Load the app as a crowd would, and say whether it held; with --find, what it serves and what gives way
    #[command(
        override_usage = "switchback rehearse [OPTIONS] [PROFILE]\n       switchback rehearse --find [OPTIONS]"
    )]
    Rehearse(rehearse::RehearseArgs),
    /// Take a copy of the app through all stages under load, and say what each serves
    Journey(rehearse::journey::JourneyArgs),
    /// Take a tenth of a tier's processors away for some seconds
    #[command(hide = true)]
    Intervene {
        /// `edge`, `web`, `pgproxy`, `primary`, `replicas`
        tier: String,
        /// Take it from another tier than this
        #[arg(long)]
        other: bool,
        #[arg(long, default_value_t = 10)]
        seconds: u64,
    },
    /// Run the PostgreSQL proxy alone, by a configuration file
    Pgproxy(StandaloneArgs),
    #[command(hide = true)]
    Daemon(DaemonArgs),
    #[command(hide = true)]
    Role(RoleArgs),
    /// Be a load generator: a load on standard input, what visitors saw on standard output
    #[command(hide = true)]
    Generate,
    /// Run by PostgreSQL for each file of its log
    #[command(hide = true)]
    WalPush {
        #[arg(long)]
        archive: PathBuf,
        source: PathBuf,
    },
    /// Run by PostgreSQL when it recovers
    #[command(hide = true)]
    WalFetch {
        #[arg(long)]
        archive: PathBuf,
        name: String,
        to: PathBuf,
    },
}

#[derive(Debug, Subcommand)]
enum BackupCommand {
    /// Show the copies that there are
    List {
        /// Show those in a folder of backups that is not this database's own
        #[arg(long, value_name = "DIR", value_parser = backup::folder)]
        from: Option<PathBuf>,
    },
}

/// The whole program: from arguments to an exit code.
pub fn run(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let cli = match Cli::try_parse_from(arguments) {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version go to stdout with code 0, mistakes to stderr with code 2.
            let _ = error.print();
            return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2));
        }
    };
    match &cli.command {
        Command::WalPush { archive, source } => return wal::push(archive, source),
        Command::WalFetch { archive, name, to } => return wal::fetch(archive, name, to),
        _ => {}
    }
    match dispatch(cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(problem) => problem.report(),
    }
}

fn dispatch(cli: Cli) -> Result<(), Problem> {
    let place = &cli.place;
    match cli.command {
        Command::Init { print } => manifest::init(place, print),
        Command::Check { json } => manifest::check(place, json),
        Command::Explain { json } => manifest::explain(place, json),
        Command::Up { supervised: true, .. } => supervised::up(place),
        Command::Up { detach, destroy, crash_at, .. } => {
            up::up(place, &up::Options { detach, destroy: set(destroy), crash_at })
        }
        Command::Plan { out, json, destroy } => plan::plan(place, out.as_deref(), json, set(destroy)),
        Command::Apply { file, yes, destroy } => plan::apply(place, file.as_deref(), yes, set(destroy)),
        Command::Stage { number, yes } => plan::stage(place, number, yes),
        Command::Deploy { json } => deploy::deploy(place, json),
        Command::Rollback { list: true, json, .. } => deploy::list(place, json),
        Command::Rollback { release, json, .. } => deploy::rollback(place, release, json),
        Command::Status { json } => status::status(place, json),
        Command::Logs { names, follow, lines, json } => logs::logs(place, names, follow, lines, json),
        Command::Why { lines, json } => why::why(place, lines, json),
        Command::Upgrade => upgrade::upgrade(place),
        Command::Down { destroy, yes, now } => down::down(place, destroy, yes.as_deref(), now),
        Command::Metrics => status::metrics(place),
        Command::Failover { to, database, json } => failover::failover(place, database, to, json),
        Command::Restart { database, json } => restart::restart(place, database, json),
        Command::Backup { show: Some(BackupCommand::List { from }), database, json } => {
            backup::list(place, database, from, json)
        }
        Command::Backup { show: None, database, json } => backup::take(place, database, json),
        Command::Restore { to: Some(to), from, database, yes, json, .. } => {
            backup::restore(place, database, to, from, yes, json)
        }
        Command::Restore { to: None, database, yes, json, .. } => backup::forget(place, database, yes, json),
        Command::Drill { name, zone, json, seconds, path } => {
            drill::drill(place, name, zone.as_deref(), json, seconds, &path)
        }
        Command::Observe { seconds, generators } => observe::observe(place, seconds, generators),
        Command::Rehearse(args) => rehearse::rehearse(place, &args),
        Command::Journey(args) => rehearse::journey::journey(place, &args),
        Command::Intervene { tier, other: false, seconds } => {
            intervene::intervene(place, &intervene::From::Tier(tier), seconds)
        }
        Command::Intervene { tier, other: true, seconds } => {
            intervene::intervene(place, &intervene::From::OtherThan(tier), seconds)
        }
        Command::Pgproxy(args) => {
            say::log_to_stderr();
            standalone::run(&args).map_err(Problem::failed)
        }
        Command::Daemon(args) => {
            say::log_to_stderr();
            let life = if args.bound { Life::Bound } else { Life::Detached };
            daemon::run(args, life)?;
            Ok(())
        }
        Command::Role(args) => {
            say::log_to_stderr();
            role::run(args).map_err(Problem::failed)
        }
        Command::Generate => {
            say::log_to_stderr();
            generate::run().map_err(Problem::failed)
        }
        Command::WalPush { .. } | Command::WalFetch { .. } => Ok(()),
    }
}

fn set(ids: Vec<ResourceId>) -> BTreeSet<ResourceId> {
    ids.into_iter().collect()
}
