//! `drill`: breaks something on purpose while clients ask, and reports what they saw.

mod report;

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write;
use std::net::SocketAddr;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use clap::ValueEnum;
use local::backup::BaseBackup;
use local::machine::{Phase, ProcessKind, ProcessStatus};
use model::{DatabaseRole, NodeId, RecoveryTarget, ResourceId, counted};
use rustix::process::{Pid, Signal, kill_process};

use super::connect::App;
use super::load::Load;
use super::probe::Probe;
use super::say::{self, Problem};
use super::up::{INTERRUPTED, Interrupts, wait_for};
use super::{Place, manifest, status};
use crate::api::{Request, Status, SwitchedOver};
use report::Report;

/// What was broken.
struct Broken {
    what: String,
    /// Processes that must not be there any more when everything is as it was.
    victims: Vec<u32>,
    /// Of a daemon: from SIGKILL until the next had taken everything over.
    adopted: Option<Duration>,
}

impl Broken {
    fn nobody(what: impl Into<String>) -> Broken {
        Broken { what: what.into(), victims: Vec::new(), adopted: None }
    }

    /// One process, and what was done to it.
    fn one(victim: &ProcessStatus, what: String) -> Broken {
        Broken { what, victims: victim.pid.into_iter().collect(), adopted: None }
    }
}

/// How long the machine may take to be as it was.
const RECOVERY_TIMEOUT: Duration = Duration::from_secs(120);
/// How long the disk of the primary stays full: enough for a standby to take over.
const DISK_FULL_FOR: Duration = Duration::from_secs(8);
/// How long a read replica that replays nothing may take to be that far behind.
const LAG_TIMEOUT: Duration = Duration::from_secs(60);
/// So long one is left behind the bound for the proxy's reads.
const LAG_BEYOND_MS: u64 = 2_000;

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Drill {
    /// SIGKILL to one instance
    InstanceCrash,
    /// SIGSTOP to one instance: it is there and says nothing
    InstanceHang,
    /// SIGKILL to the daemon; a new one takes over
    DaemonCrash,
    /// The edge is handed over to a new process
    EdgeReplace,
    /// pgproxy is handed over to a new process
    ProxyReplace,
    /// SIGKILL to the database's primary; a standby takes over
    PrimaryCrash,
    /// SIGSTOP to every process of the database's primary: it is there and says nothing
    PrimaryHang,
    /// The disk of the primary's data is filled, where it is one of its own
    PrimaryDiskFull,
    /// SIGKILL to a standby of the database
    StandbyCrash,
    /// SIGKILL to a read replica of the database
    ReplicaCrash,
    /// SIGSTOP to the process of a read replica that replays the log: it answers, with what was long ago
    ReplicaLag,
    /// A planned change of primary
    Switchover,
    /// The newest backup is restored beside the app, read and compared; nothing is broken
    Restore,
    /// SIGKILL to every instance and every database node of a zone: that of the database's primary, or `--zone`
    ZoneLoss,
}

/// `zone` is the one that is lost, where one is.
pub fn drill(
    place: &Place,
    drill: Drill,
    zone: Option<&str>,
    as_json: bool,
    seconds: u64,
    path: &str,
) -> Result<(), Problem> {
    if zone.is_some() && drill != Drill::ZoneLoss {
        return Err(Problem::usage("`--zone` is for `zone-loss` alone"));
    }
    let app = place.app()?;
    app.must_be_ours()?;
    let before: Status = app.ask(&Request::Status, |_| {})?;
    status::must_be_whole(&before, "a drill")?;
    let front = front(&before)?;
    // Whatever would be refused is, before anybody asks anything.
    must_be_possible(&app, drill, zone, &before)?;
    // From here on an interrupt ends the waiting; what a drill does is undone whatever comes.
    let interrupts = Interrupts::listen()?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
    let runtime = runtime.map_err(|error| Problem::failed(error.to_string()))?;
    let probe = runtime.block_on(Probe::start(&app, &before))?;
    let load = {
        let _entered = runtime.enter();
        Load::start(front, path)
    };
    let part = Duration::from_secs(seconds.max(3)) / 3;
    interrupts.pause(part);
    let started = Instant::now();
    let mut notes = Vec::new();
    let broke = match interrupts.count() {
        0 => break_it(&app, drill, zone, &before, &interrupts, &mut notes),
        _ => Err(Problem::Said(INTERRUPTED)),
    };
    let recovered = match &broke {
        Ok(broken) => recover(&app, &before, &broken.victims, started, &interrupts),
        Err(_) => None,
    };
    interrupts.pause(part);
    let seen = runtime.block_on(load.stop());
    let database = probe.map(|probe| runtime.block_on(probe.stop()));
    if interrupts.count() > 0 {
        say::talk(
            "interrupted: what was broken until then the daemon mends; `switchback status` shows how far it is",
        );
        return Err(Problem::Said(INTERRUPTED));
    }
    let broke = broke?;
    let ms = |took: Duration| u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
    let report = Report {
        drill: drill.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default(),
        broke: broke.what,
        seen,
        database,
        adopted_ms: broke.adopted.map(ms),
        recovered_ms: recovered.map(ms),
        notes,
    };
    report.print(as_json)?;
    if report.recovered_ms.is_none() {
        return Err(Problem::failed("not everything was ready again within two minutes")
            .hint("`switchback status` shows what is missing, `switchback why` what was tried"));
    }
    match report.cost(drill).as_slice() {
        [] => Ok(()),
        cost => Err(Problem::failed(format!("it cost clients what it should not; {}", cost.join(", ")))
            .hint("the report says when; `switchback why` says what was decided, `switchback logs` what was said")),
    }
}

/// The name of the database: what its nodes are called before their number.
fn cluster(status: &Status) -> Result<ResourceId, Problem> {
    let name = node(status, DatabaseRole::Primary)?.name.split('.').next().unwrap_or_default();
    name.parse().map_err(|_| Problem::failed("the database has no name"))
}

fn front(status: &Status) -> Result<SocketAddr, Problem> {
    let edge = status.machine.processes.iter().find(|process| process.kind == ProcessKind::Edge);
    let address = edge.and_then(|edge| edge.address.parse::<SocketAddr>().ok());
    let mut address = address.ok_or_else(|| Problem::failed("the app has no front door"))?;
    if address.ip().is_unspecified() {
        address.set_ip(std::net::Ipv4Addr::LOCALHOST.into());
    }
    Ok(address)
}

/// Whether there is what this drill breaks.
///
/// # Errors
/// When what is to be broken is not there, or may not be.
fn must_be_possible(app: &App, drill: Drill, zone: Option<&str>, before: &Status) -> Result<(), Problem> {
    match drill {
        Drill::InstanceCrash | Drill::InstanceHang => instance(before).map(drop),
        Drill::DaemonCrash => manifest::read(&app.dir).map(drop),
        Drill::EdgeReplace => Ok(()),
        Drill::ProxyReplace => node(before, DatabaseRole::Primary).map(drop),
        Drill::PrimaryCrash | Drill::PrimaryHang | Drill::StandbyCrash | Drill::Switchover => {
            node(before, DatabaseRole::Standby).map(drop)
        }
        Drill::PrimaryDiskFull => own_disk(app, node(before, DatabaseRole::Primary)?).map(drop),
        Drill::ReplicaCrash | Drill::ReplicaLag => node(before, DatabaseRole::ReadReplica).map(drop),
        Drill::Restore => {
            let request =
                Request::CheckRestore { cluster: cluster(before)?, to: RecoveryTarget::Latest, from: None };
            app.ask(&request, |_| {})
        }
        Drill::ZoneLoss => zone_to_lose(zone, before).map(drop),
    }
}

/// The last one, which another can stand in for where there are several.
fn instance(before: &Status) -> Result<&ProcessStatus, Problem> {
    instances(before).next_back().ok_or_else(|| Problem::refused("there is no instance"))
}

fn instances(before: &Status) -> impl DoubleEndedIterator<Item = &ProcessStatus> {
    before.machine.processes.iter().filter(|process| process.kind == ProcessKind::Web)
}

/// Where none is named, that of the primary, which costs most; without a database, the last one.
fn zone_to_lose<'a>(named: Option<&str>, before: &'a Status) -> Result<&'a str, Problem> {
    let zones = &before.machine.zones;
    let [_, .., last] = zones.as_slice() else {
        return Err(Problem::refused("there is only one zone; losing it is losing everything")
            .hint("`switchback stage 2` adds a second zone"));
    };
    if let Some(named) = named {
        return zones.iter().find(|zone| *zone == named).map(String::as_str).ok_or_else(|| {
            Problem::refused(format!("there is no zone {named}"))
                .hint(format!("there are {}", zones.join(", ")))
        });
    }
    Ok(node(before, DatabaseRole::Primary).map_or(last, |primary| &primary.zone))
}

fn break_it(
    app: &App,
    drill: Drill,
    zone: Option<&str>,
    before: &Status,
    interrupts: &Interrupts,
    notes: &mut Vec<String>,
) -> Result<Broken, Problem> {
    match drill {
        Drill::InstanceCrash => {
            let victim = instance(before)?;
            signal(victim.pid, Signal::KILL)?;
            Ok(Broken::one(victim, format!("SIGKILL to {}", victim.name)))
        }
        Drill::InstanceHang => {
            let victim = instance(before)?;
            signal(victim.pid, Signal::STOP)?;
            if instances(before).count() == 1 {
                notes.push("it was the only instance: requests wait for its restart".to_owned());
            }
            Ok(Broken::one(victim, format!("SIGSTOP to {}", victim.name)))
        }
        Drill::DaemonCrash => {
            let manifest = manifest::read(&app.dir)?;
            signal(Some(before.daemon.pid), Signal::KILL)?;
            let killed = Instant::now();
            let (hello, _) = app.ensure_daemon(&manifest.graph().app, None)?;
            let adopted = adopted(app, before, killed, interrupts)?;
            notes.push(format!("daemon {} took over from {}", hello.pid, before.daemon.pid));
            Ok(Broken { adopted: Some(adopted), ..Broken::nobody("SIGKILL to the daemon") })
        }
        Drill::EdgeReplace => {
            wait_for::<()>(app, Request::ReplaceEdge, interrupts, 1)?;
            Ok(Broken::nobody("the edge was handed over to a new process"))
        }
        Drill::ProxyReplace => {
            wait_for::<()>(app, Request::ReplaceProxies, interrupts, 1)?;
            notes.push("the old one keeps the sessions it has until they end, an hour at most".to_owned());
            Ok(Broken::nobody("pgproxy was handed over to a new process"))
        }
        Drill::PrimaryCrash => {
            let primary = node(before, DatabaseRole::Primary)?;
            signal(primary.pid, Signal::KILL)?;
            Ok(Broken::one(primary, format!("SIGKILL to {}, the primary", primary.name)))
        }
        Drill::PrimaryHang => {
            let primary = node(before, DatabaseRole::Primary)?;
            let postmaster = primary.pid.ok_or_else(|| Problem::failed("the process is gone already"))?;
            signal(primary.pid, Signal::STOP)?;
            for child in children_of(postmaster) {
                // One that has ended meanwhile says nothing any more, either.
                let _ = signal(Some(child), Signal::STOP);
            }
            let what = format!("SIGSTOP to {}, the primary, and all its children", primary.name);
            Ok(Broken::one(primary, what))
        }
        Drill::PrimaryDiskFull => {
            let primary = node(before, DatabaseRole::Primary)?;
            let full = FullDisk::of(app, primary)?;
            interrupts.pause(DISK_FULL_FOR);
            let now: Status = app.ask(&Request::Status, |_| {})?;
            let serving = node(&now, DatabaseRole::Primary)?;
            notes.push(match serving.name == primary.name {
                true => format!("{} stayed the primary", primary.name),
                false => format!("{} took over", serving.name),
            });
            drop(full);
            let seconds = DISK_FULL_FOR.as_secs();
            Ok(Broken::nobody(format!("the disk of {}, the primary, was full for {seconds} s", primary.name)))
        }
        Drill::StandbyCrash => {
            let standby = node(before, DatabaseRole::Standby)?;
            signal(standby.pid, Signal::KILL)?;
            Ok(Broken::one(standby, format!("SIGKILL to {}, a standby", standby.name)))
        }
        Drill::ReplicaCrash => {
            let replica = node(before, DatabaseRole::ReadReplica)?;
            signal(replica.pid, Signal::KILL)?;
            Ok(Broken::one(replica, format!("SIGKILL to {}, a read replica", replica.name)))
        }
        Drill::ReplicaLag => {
            let replica = node(before, DatabaseRole::ReadReplica)?;
            let postmaster = replica.pid.ok_or_else(|| Problem::failed("the process is gone already"))?;
            let replaying = children_of(postmaster).into_iter().find(|child| replays(*child));
            let replaying = replaying.ok_or_else(|| Problem::failed("nothing replays the log there"))?;
            let stopped = Stopped::now(replaying)?;
            let lag_ms = wait_for_lag(app, &replica.name, interrupts)?;
            drop(stopped);
            notes.push(format!("{} was {lag_ms} ms behind when it went on", replica.name));
            Ok(Broken::nobody(format!("SIGSTOP to what replays the log on {}, a read replica", replica.name)))
        }
        Drill::Switchover => {
            let request = Request::SwitchOver { cluster: cluster(before)?, to: None };
            let switched: SwitchedOver = wait_for(app, request, interrupts, 1)?;
            Ok(Broken::nobody(format!("{} took over from {} in order", switched.to, switched.from)))
        }
        Drill::Restore => {
            let request = Request::ProveBackup { cluster: cluster(before)? };
            let backup: BaseBackup = wait_for(app, request, interrupts, 1)?;
            if let Some(proof) = &backup.proof {
                notes.push(format!(
                    "{} with {} were read, {} found equal to the primary's; it took {} ms",
                    counted(proof.tables as usize, "table"),
                    counted(proof.rows as usize, "row"),
                    proof.compared,
                    proof.took_ms
                ));
            }
            Ok(Broken::nobody(format!("nothing; backup {} is proven", backup.number)))
        }
        Drill::ZoneLoss => {
            let zone = zone_to_lose(zone, before)?;
            let lost: Vec<&ProcessStatus> = before
                .machine
                .processes
                .iter()
                .filter(|process| process.zone == zone)
                // Not the edge and pgproxy: there is one of each, whatever zone it is counted to.
                .filter(|process| matches!(process.kind, ProcessKind::Web | ProcessKind::Postgres))
                .collect();
            for process in &lost {
                signal(process.pid, Signal::KILL)?;
            }
            let names: Vec<&str> = lost.iter().map(|process| process.name.as_str()).collect();
            let what = format!("SIGKILL to all of zone {zone}: {}", names.join(", "));
            Ok(Broken {
                what,
                victims: lost.iter().filter_map(|process| process.pid).collect(),
                adopted: None,
            })
        }
    }
}

fn node(before: &Status, role: DatabaseRole) -> Result<&ProcessStatus, Problem> {
    let of_role = |role| before.machine.processes.iter().find(|process| process.role == Some(role));
    let has_database = of_role(DatabaseRole::Primary).is_some();
    of_role(role).ok_or_else(|| match role {
        DatabaseRole::Standby if has_database => {
            Problem::refused("the database has no standby").hint("`switchback stage 2` adds one")
        }
        DatabaseRole::ReadReplica if has_database => {
            Problem::refused("the database has no read replica").hint("`switchback stage 3` adds two")
        }
        _ => Problem::refused("the app has no database"),
    })
}

/// The folder of a node's data, where that is on a disk of its own.
///
/// # Errors
/// Where it is not, or cannot be looked at.
fn own_disk(app: &App, node: &ProcessStatus) -> Result<PathBuf, Problem> {
    use std::os::unix::fs::MetadataExt;
    let failed = |error: std::io::Error| Problem::failed(format!("{}: {error}", node.name));
    let id: NodeId = node.name.parse().map_err(|_| Problem::failed("the primary has no name"))?;
    let folder = app.state.node(&id);
    let device = |path: &Path| std::fs::metadata(path).map(|metadata| metadata.dev());
    if device(&folder).map_err(failed)? != device(app.state.root()).map_err(failed)? {
        return Ok(folder);
    }
    Err(Problem::refused(format!(
        "the data of {} has no disk of its own: filling it would fill that of everything else",
        node.name
    ))
    .hint(format!("mount one at {} before `switchback up`, for an app to rehearse with", folder.display())))
}

/// A file that leaves no space on the disk of a node. It has no name, so that its space is free again when it is dropped,
/// or this process is killed.
struct FullDisk {
    _ballast: File,
}

impl FullDisk {
    fn of(app: &App, node: &ProcessStatus) -> Result<FullDisk, Problem> {
        let failed = |error: std::io::Error| Problem::failed(format!("{}: {error}", node.name));
        let path = own_disk(app, node)?.join("switchback-drill-ballast");
        let mut ballast = File::create(&path).map_err(failed)?;
        std::fs::remove_file(&path).map_err(failed)?;
        for piece in [1 << 20, 4 << 10, 1] {
            // Until there is no more space for a piece of this size.
            while ballast.write_all(&vec![0; piece]).and_then(|()| ballast.sync_data()).is_ok() {}
        }
        Ok(FullDisk { _ballast: ballast })
    }
}

/// A process that is stopped, and goes on when this is dropped or this process is killed: a shell that waits for the end of
/// our pipe to it sees to that.
struct Stopped {
    watcher: Child,
}

impl Stopped {
    fn now(pid: u32) -> Result<Stopped, Problem> {
        let mut shell = Command::new("sh");
        shell.args(["-c", "read -r _; kill -CONT \"$0\"", &pid.to_string()]);
        // Not of our group, which a terminal interrupts as a whole.
        let shell = shell.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null()).process_group(0);
        let failed = |error| Problem::failed(format!("sh cannot be started: {error}"));
        let stopped = Stopped { watcher: shell.spawn().map_err(failed)? };
        signal(Some(pid), Signal::STOP)?;
        Ok(stopped)
    }
}

impl Drop for Stopped {
    fn drop(&mut self) {
        drop(self.watcher.stdin.take());
        let _ = self.watcher.wait();
    }
}

/// Whether a process of PostgreSQL is the one that replays the log of its primary.
fn replays(pid: u32) -> bool {
    let title = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    String::from_utf8_lossy(&title).contains("startup recovering")
}

/// Waits until a follower is further behind than a read replica may be that reads go to. How far, in milliseconds.
fn wait_for_lag(app: &App, name: &str, interrupts: &Interrupts) -> Result<u64, Problem> {
    let began = Instant::now();
    let mut limit = LAG_TIMEOUT;
    while began.elapsed() < limit && interrupts.count() == 0 {
        let status: Status = app.ask(&Request::Status, |_| {})?;
        let follower = status.machine.processes.iter().find(|process| process.name == name);
        let bound = follower.and_then(|follower| follower.max_replica_lag_ms).unwrap_or_default();
        if let Some(ms) = follower.and_then(|follower| follower.replay_lag_ms)
            && ms > bound + LAG_BEYOND_MS
        {
            return Ok(ms);
        }
        limit = LAG_TIMEOUT + Duration::from_millis(bound);
        std::thread::sleep(Duration::from_millis(100));
    }
    Err(Problem::failed(format!("{name} did not fall behind: nothing is written")))
}

/// The processes whose parent is `pid`. PostgreSQL's children are sessions of their own and no process group.
fn children_of(pid: u32) -> Vec<u32> {
    let is_child = |candidate: &u32| {
        let stat = std::fs::read_to_string(format!("/proc/{candidate}/stat")).unwrap_or_default();
        // After the name, which may contain anything: the state, then the parent.
        let parent = stat.rsplit_once(')').and_then(|(_, rest)| rest.split_whitespace().nth(1));
        parent.and_then(|parent| parent.parse().ok()) == Some(pid)
    };
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    pids.filter(is_child).collect()
}

fn signal(pid: Option<u32>, signal: Signal) -> Result<(), Problem> {
    let pid = pid.and_then(|pid| Pid::from_raw(pid.cast_signed()));
    let pid = pid.ok_or_else(|| Problem::failed("the process is gone already"))?;
    kill_process(pid, signal)
        .map_err(|error| Problem::failed(format!("the process cannot be signalled: {error}")))
}

/// Waits until the daemon after the one that was `killed` has taken everything over. Restarting something would be no
/// taking over.
fn adopted(
    app: &App,
    before: &Status,
    killed: Instant,
    interrupts: &Interrupts,
) -> Result<Duration, Problem> {
    while interrupts.count() == 0 {
        let now: Status = app.ask(&Request::Status, |_| {})?;
        if now.operation.is_none() {
            let took = killed.elapsed();
            let pids = |status: &Status| -> BTreeMap<String, Option<u32>> {
                let processes = status.machine.processes.iter();
                processes.map(|process| (process.name.clone(), process.pid)).collect()
            };
            let (was, is) = (pids(before), pids(&now));
            let Some((name, _)) = was.iter().find(|(name, pid)| is.get(*name) != Some(*pid)) else {
                return Ok(took);
            };
            return Err(Problem::failed(format!(
                "{name} is another process than before the daemon was killed"
            )));
        }
        if killed.elapsed() > RECOVERY_TIMEOUT {
            return Err(Problem::failed("the new daemon did not take everything over within two minutes"));
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    Err(Problem::Said(INTERRUPTED))
}

/// Waits until everything that ran is ready again, in as many processes, the broken ones being new.
fn recover(
    app: &App,
    before: &Status,
    victims: &[u32],
    started: Instant,
    interrupts: &Interrupts,
) -> Option<Duration> {
    while started.elapsed() < RECOVERY_TIMEOUT && interrupts.count() == 0 {
        if let Ok(now) = app.ask::<Status>(&Request::Status, |_| {})
            && whole(before, &now)
            && !now
                .machine
                .processes
                .iter()
                .any(|process| process.pid.is_some_and(|pid| victims.contains(&pid)))
        {
            return Some(started.elapsed());
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    None
}

/// A standby is whole when it could take over, and a read replica when reads are sent to it.
fn whole(before: &Status, now: &Status) -> bool {
    let ready = |process: &ProcessStatus| {
        process.state == Phase::Ready && is_running(process.pid) && status::follows(process)
    };
    let ready = now.machine.processes.iter().all(ready);
    now.operation.is_none() && ready && now.machine.processes.len() == before.machine.processes.len()
}

/// Neither gone nor stopped: a stopped process still counts as ready until its checks are missed.
fn is_running(pid: Option<u32>) -> bool {
    let Some(pid) = pid else { return false };
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let state = stat.rsplit_once(')').map(|(_, rest)| rest.trim_start());
    state.is_some_and(|rest| !rest.starts_with(['T', 'Z', 'X']))
}
