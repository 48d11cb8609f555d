//! What writers see when the primary of a cluster is lost: the longest pause between two acknowledged commits, errors, and
//! whether there are as many rows as commits were acknowledged. A commit done twice is refused by its key.
//!
//! `pgbench` writes through the address of `DATABASE_URL`, as an app would, and logs when each commit was acknowledged.
//! Meanwhile the primary is killed, stopped, or switched over, again and again.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};

use super::machine;
use super::page;
use super::quiet::{self, Busy};
use crate::demo;
use crate::failure::{Failure, Result};
use crate::flags::Flags;
use crate::house;
use crate::setup;
use crate::shell;

const DEFAULT_ROUNDS: usize = 30;
const WRITERS: usize = 4;
/// How long they write in each round: the fault, and the time after it.
const WRITE_SECONDS: u64 = 6;
/// Before a fault, so that everybody writes.
const QUIET: Duration = Duration::from_secs(1);
/// For the old primary to be a standby that could take over.
const RETURN_LIMIT: Duration = Duration::from_secs(120);
const POLL: Duration = Duration::from_millis(50);
/// An acknowledgement that was under way when the fault came is none that came after it.
const BEFORE: Duration = Duration::from_millis(50);

/// The key stands in the statement: repeated, it would be refused.
const WRITE: &str = "\\set id random(1, 9000000000000000000)\n\
                     INSERT INTO written (id, payload) VALUES (:id, repeat('x', 100));\n";

const MANIFEST: &str = r#"app = "failover"
zones = 2

[web]
run = "exec python3 -m http.server --bind 127.0.0.1 $PORT"
instances = 1

[db]
engine = "postgres"
standbys = 1

[edge]
listen = 0
"#;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Fault {
    Crash,
    Hang,
    Switchover,
}

/// # Errors
/// When it does not come up, does not become whole again, or the machine is busy.
pub fn run(mut flags: Flags) -> Result {
    let rounds = flags.option("--rounds")?.unwrap_or(DEFAULT_ROUNDS).max(1);
    let fault = match flags.option::<String>("--fault")?.as_deref() {
        None | Some("crash") => Fault::Crash,
        Some("hang") => Fault::Hang,
        Some("switchover") => Fault::Switchover,
        Some(other) => {
            return Err(Failure::usage(format!("no fault `{other}`: there are crash, hang and switchover")));
        }
    };
    // A node that crashes again soon after its return is started later and later; rounds that far apart show the first time.
    let apart = Duration::from_secs(flags.option("--apart")?.unwrap_or(0));
    let busy = if flags.switch("--anyway") { Busy::Measure } else { Busy::Refuse };
    let consent = setup::Consent::from_flags(&mut flags);
    flags.end()?;
    setup::install(setup::Needs::TEST, consent)?;
    demo::build_switchback()?;
    let watch = quiet::must_be_quiet(busy)?;
    let cluster = Cluster::up()?;
    let before = cluster.whole()?;
    let address = Address::of(&cluster, &before)?;
    address.sql("CREATE TABLE written (id bigint PRIMARY KEY, payload text NOT NULL)")?;
    let mut measured = Measured::default();
    for round in 1..=rounds {
        if round > 1 {
            std::thread::sleep(apart);
        }
        let status = cluster.whole()?;
        // Until its end nobody of them is stopped: an answer that is not waited for could not be counted.
        let writers = Writers::start(&cluster, &address)?;
        std::thread::sleep(QUIET);
        let since = SystemTime::now();
        let began = Instant::now();
        break_it(&cluster, &status, fault)?;
        cluster.whole_after(&status, fault)?;
        let returned = began.elapsed().as_secs_f64();
        let said = writers.wait()?;
        let acknowledged = take_acknowledgements(&cluster.folder)?;
        // Writers that gave up write no more: there is no end to their pause.
        let gave_up = said.contains("aborted");
        let pause = if gave_up { f64::INFINITY } else { longest_pause(&acknowledged, since) };
        measured.said.push_str(&said);
        eprintln!("    round {round}: {pause:.3} s without a commit, whole again after {returned:.2} s");
        measured.acknowledged += acknowledged.len();
        measured.pauses.push(pause);
        measured.returned.push(returned);
    }
    let busy = watch.end();
    let there: usize = address.sql("SELECT count(*) FROM written")?.trim().parse().unwrap_or(0);
    let lost = measured.acknowledged.saturating_sub(there);
    let (name, seconds) = (fault.name(), apart.as_secs());
    let command = format!("cargo xtask bench failover --fault {name} --rounds {rounds} --apart {seconds}");
    let report = Report { fault, measured, there, busy, command };
    print!("{}", report.markdown());
    page::publish(&format!("failover-{name}"), &report.markdown(), &report.json())?;
    match lost {
        0 => Ok(()),
        lost => Err(Failure::new(format!("{lost} acknowledged commits are not there"))),
    }
}

#[derive(Default)]
struct Measured {
    /// One for each round, in seconds.
    pauses: Vec<f64>,
    returned: Vec<f64>,
    acknowledged: usize,
    /// By pgbench.
    said: String,
}

struct Report {
    fault: Fault,
    measured: Measured,
    /// Rows in the end.
    there: usize,
    busy: Option<String>,
    command: String,
}

impl Fault {
    fn name(self) -> &'static str {
        match self {
            Fault::Crash => "crash",
            Fault::Hang => "hang",
            Fault::Switchover => "switchover",
        }
    }

    fn words(self) -> &'static str {
        match self {
            Fault::Crash => "SIGKILL to the primary",
            Fault::Hang => "SIGSTOP to the primary and its children",
            Fault::Switchover => "a planned switchover",
        }
    }

    /// What the longest pause is to be, in seconds.
    fn wished(self) -> &'static str {
        match self {
            Fault::Crash => "p50 at most 0.12, p99 at most 0.5",
            Fault::Hang => "at most 1.5",
            Fault::Switchover => "p99 at most 0.3",
        }
    }
}

impl Report {
    fn markdown(&self) -> String {
        let Report { fault, measured, there, busy, command } = self;
        let mut page = format!(
            "# Writers while the primary goes: {}\n\n\
             Measured on {} by `{command}`.\n\n\
             - Machine: {}\n\
             - {}, {} times, under {WRITERS} writers (pgbench, one INSERT each) through `pgproxy`, which share the machine\n\
             - A primary and a standby that confirms each commit\n",
            fault.name(),
            machine::today(),
            machine::words(),
            fault.words(),
            measured.pauses.len(),
        );
        if let Some(busy) = busy {
            page.push_str(&format!(
                "\n**The machine was busy with something else ({busy}). These figures are for orientation only.**\n"
            ));
        }
        page.push_str("\n| | p50 | p99 | longest | wished |\n|---|---|---|---|---|\n");
        for (name, figures, wished) in [
            ("longest pause between two acknowledged commits, s", &measured.pauses, fault.wished()),
            ("until everything was whole again, s", &measured.returned, "at most 2.5"),
        ] {
            let [p50, p99, longest] = [50, 99, 100].map(|percent| at(figures, percent));
            page.push_str(&format!("| {name} | {p50:.3} | {p99:.3} | {longest:.3} | {wished} |\n"));
        }
        let acknowledged = measured.acknowledged;
        page.push_str(&format!(
            "\nCommits acknowledged: {acknowledged}; rows there: {there}. Acknowledged and not there: {}. There and not \
             acknowledged: {}.\n",
            acknowledged.saturating_sub(*there),
            // A writer that was cut off between a commit and its answer has written a row that nobody acknowledged.
            there.saturating_sub(acknowledged),
        ));
        if *fault == Fault::Crash {
            page.push_str(
                "\nA node that crashes again within 30 s of its return is started later and later by the supervisor, after 30 s at \
                 the longest: that is part of the time until everything was whole. `--apart 31` leaves it out.\n",
            );
        }
        let none_failed = |line: &&str| line.contains("failed transactions: 0 ");
        let complaint = |line: &&str| ["error", "aborted", "failed"].iter().any(|word| line.contains(word));
        for line in measured.said.lines().filter(complaint).filter(|line| !none_failed(line)) {
            page.push_str(&format!("\n    pgbench: {line}\n"));
        }
        page
    }

    fn json(&self) -> Value {
        let Report { fault, measured, there, busy, command } = self;
        json!({
            "date": machine::today(),
            "command": command,
            "machine": machine::description(),
            "busy": busy,
            "fault": fault.name(),
            "pauses_s": measured.pauses,
            "whole_again_s": measured.returned,
            "acknowledged": measured.acknowledged,
            "rows": there,
        })
    }
}

/// By nearest rank.
fn at(figures: &[f64], percent: usize) -> f64 {
    let mut sorted = figures.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted[(sorted.len() * percent).div_ceil(100).max(1) - 1]
}

fn break_it(cluster: &Cluster, status: &Value, fault: Fault) -> Result {
    let primary = primary(status)?;
    let pid = primary["pid"].as_u64().ok_or_else(|| Failure::new("the primary has no process"))?;
    let signal =
        |signal: &str, pids: &[String]| shell::read(Command::new("kill").arg(signal).args(pids)).map(drop);
    match fault {
        Fault::Crash => signal("-KILL", &[pid.to_string()]),
        Fault::Hang => {
            signal("-STOP", &[pid.to_string()])?;
            // Stopped, it starts no more; those that end meanwhile cannot be stopped.
            let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
            for child in children.split_whitespace() {
                let _ = signal("-STOP", &[child.to_owned()]);
            }
            Ok(())
        }
        Fault::Switchover => shell::read(&mut cluster.switchback(&["failover"])).map(drop),
    }
}

fn primary(status: &Value) -> Result<&Value> {
    let processes = status["processes"].as_array().into_iter().flatten();
    let mut primaries = processes.filter(|process| process["role"] == "primary");
    primaries.next().ok_or_else(|| Failure::new("status names no primary"))
}

/// An app with a database and a standby, in a folder of its own. Taken down with everything when dropped.
struct Cluster {
    folder: PathBuf,
}

impl Cluster {
    fn up() -> Result<Cluster> {
        let folder = house::target().join("bench-failover");
        let cluster = Cluster { folder: folder.clone() };
        if folder.exists() {
            // What a broken run has left.
            let _ = shell::read(&mut cluster.switchback(&["down", "--destroy", "--yes", "failover"]));
            fs::remove_dir_all(&folder).map_err(Failure::while_doing(folder.display()))?;
        }
        fs::create_dir_all(&folder).map_err(Failure::while_doing(folder.display()))?;
        write(&folder.join("switchback.toml"), MANIFEST)?;
        write(&folder.join("index.html"), "up\n")?;
        write(&folder.join("write.sql"), WRITE)?;
        shell::run(&mut cluster.switchback(&["up", "--detach"]))?;
        Ok(cluster)
    }

    fn switchback(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(demo::program());
        command
            .env_remove("CARGO_TARGET_DIR")
            .stdin(Stdio::null())
            .arg("-C")
            .arg(&self.folder)
            .args(arguments);
        command
    }

    fn status(&self) -> Result<Value> {
        let text = shell::read(&mut self.switchback(&["status", "--json"]))?;
        serde_json::from_str(&text).map_err(Failure::while_doing("status --json"))
    }

    /// Waits until everything is ready and the standby could take over.
    fn whole(&self) -> Result<Value> {
        self.wait(|_| true)
    }

    /// As [`Cluster::whole`], with another primary than in `before`, or another process.
    fn whole_after(&self, before: &Value, fault: Fault) -> Result<Value> {
        let old = primary(before)?.clone();
        self.wait(|now| {
            let new = primary(now);
            new.is_ok_and(|new| match fault {
                Fault::Crash | Fault::Hang => new["pid"] != old["pid"],
                Fault::Switchover => new["name"] != old["name"],
            })
        })
    }

    fn wait(&self, also: impl Fn(&Value) -> bool) -> Result<Value> {
        let deadline = Instant::now() + RETURN_LIMIT;
        loop {
            let status = self.status()?;
            let whole = |process: &Value| {
                process["state"] == "ready"
                    && (process["role"] != "standby" || process["confirms_commits"] == true)
            };
            let processes = status["processes"].as_array().into_iter().flatten();
            let standbys = processes.clone().filter(|process| process["role"] == "standby").count();
            if standbys == 1 && processes.clone().all(whole) && also(&status) {
                return Ok(status);
            }
            if Instant::now() > deadline {
                return Err(Failure::new(format!("not whole again within {RETURN_LIMIT:?}: {status:#}")));
            }
            std::thread::sleep(POLL);
        }
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        let mut down = self.switchback(&["down", "--destroy", "--yes", "failover"]);
        if let Err(failure) = shell::read(&mut down) {
            eprintln!("    {failure}");
        }
    }
}

/// What `DATABASE_URL` says.
struct Address {
    port: String,
    role: String,
    password: String,
    database: String,
}

impl Address {
    fn of(cluster: &Cluster, status: &Value) -> Result<Address> {
        let proxy = status["processes"].as_array().into_iter().flatten().find(|p| p["kind"] == "pgproxy");
        let address = proxy.and_then(|proxy| proxy["address"].as_str()).unwrap_or_default();
        let port = address.rsplit(':').next().unwrap_or_default().to_owned();
        let path = cluster.folder.join(".switchback/credentials/db.json");
        let text = fs::read(&path).map_err(Failure::while_doing(path.display()))?;
        let credentials: Value =
            serde_json::from_slice(&text).map_err(Failure::while_doing(path.display()))?;
        let word = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        Ok(Address {
            port,
            role: word(&credentials["app"]["role"]),
            password: word(&credentials["app"]["password"]),
            database: word(&credentials["database"]),
        })
    }

    fn client(&self, program: &str) -> Result<Command> {
        let found = postgres_program(program)?;
        let mut command = Command::new(found);
        // Not among the arguments, which others can see.
        command.env("PGPASSWORD", &self.password).stdin(Stdio::null());
        command.args(["--host", "127.0.0.1", "--port", &self.port, "--username", &self.role]);
        Ok(command)
    }

    fn sql(&self, statement: &str) -> Result<String> {
        let mut psql = self.client("psql")?;
        shell::read(psql.args([
            "--no-psqlrc",
            "--quiet",
            "--tuples-only",
            "--no-align",
            "--command",
            statement,
            &self.database,
        ]))
    }
}

/// In `PATH`, or where Debian keeps those of each version.
fn postgres_program(name: &str) -> Result<PathBuf> {
    if let Some(found) = shell::find(name) {
        return Ok(found);
    }
    let versions = fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let mut found: Vec<PathBuf> = versions.map(|version| version.path().join("bin").join(name)).collect();
    found.retain(|path| path.is_file());
    found.sort();
    found.pop().ok_or_else(|| Failure::new(format!("`{name}` was not found")))
}

struct Writers {
    child: Child,
    said: PathBuf,
}

impl Writers {
    fn start(cluster: &Cluster, address: &Address) -> Result<Writers> {
        let said = cluster.folder.join("pgbench.said");
        let out = fs::File::create(&said).map_err(Failure::while_doing(said.display()))?;
        let mut pgbench = address.client("pgbench")?;
        let writers = WRITERS.to_string();
        pgbench.args([
            "--no-vacuum",
            "--protocol=simple",
            &format!("--time={WRITE_SECONDS}"),
            "--log",
            "--log-prefix=commits",
        ]);
        pgbench
            .args(["--client", &writers, "--file", "write.sql", &address.database])
            .current_dir(&cluster.folder);
        let stderr = out.try_clone().map_err(Failure::while_doing(said.display()))?;
        let child = pgbench.stdout(out).stderr(stderr).spawn().map_err(Failure::while_doing("pgbench"))?;
        Ok(Writers { child, said })
    }

    /// Gives what they said.
    fn wait(mut self) -> Result<String> {
        self.child.wait().map_err(Failure::while_doing("pgbench"))?;
        fs::read_to_string(&self.said).map_err(Failure::while_doing(self.said.display()))
    }
}

/// When each commit was acknowledged, since the epoch, in order. The logs are removed.
fn take_acknowledgements(folder: &Path) -> Result<Vec<Duration>> {
    let mut all = Vec::new();
    for entry in fs::read_dir(folder).map_err(Failure::while_doing(folder.display()))?.flatten() {
        if !entry.file_name().to_string_lossy().starts_with("commits.") {
            continue;
        }
        let text = fs::read_to_string(entry.path()).map_err(Failure::while_doing(entry.path().display()))?;
        // client transaction latency script seconds microseconds
        all.extend(text.lines().filter_map(|line| {
            let mut words = line.split(' ');
            let seconds: u64 = words.nth(4)?.parse().ok()?;
            let micros: u64 = words.next()?.parse().ok()?;
            Some(Duration::from_micros(seconds * 1_000_000 + micros))
        }));
        fs::remove_file(entry.path()).map_err(Failure::while_doing(entry.path().display()))?;
    }
    all.sort_unstable();
    Ok(all)
}

/// The longest time without an acknowledgement that began after the fault, or was under way then. In seconds.
fn longest_pause(acknowledged: &[Duration], since: SystemTime) -> f64 {
    let since = since.duration_since(UNIX_EPOCH).unwrap_or_default();
    let from = acknowledged.partition_point(|at| *at + BEFORE < since);
    let until = acknowledged.partition_point(|at| *at < since + RETURN_LIMIT);
    let near = &acknowledged[from..until];
    near.windows(2).map(|pair| (pair[1] - pair[0]).as_secs_f64()).fold(0.0, f64::max)
}

fn write(path: &Path, text: &str) -> Result {
    fs::write(path, text).map_err(Failure::while_doing(path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pause_is_the_longest_gap_after_the_fault() {
        let at = |ms: u64| Duration::from_millis(ms);
        let acknowledged = [at(100), at(900), at(1_000), at(1_010), at(1_310), at(1_320), at(1_400)];
        let pause = longest_pause(&acknowledged, UNIX_EPOCH + at(1_005));
        assert!((pause - 0.3).abs() < 1e-9, "{pause}");
    }
}
