//! What is broken while clients work, at moments that nobody has chosen.

use std::time::{Duration, Instant};

use fastrand::Rng;
use testkit::{Process, Status, Switchback};

use crate::history::Fault;

/// What can be done to a running app.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// SIGKILL to the database's primary.
    PrimaryCrash,
    /// SIGSTOP to the primary and all its children, for some time.
    PrimaryHang,
    /// SIGKILL to a standby or a read replica.
    FollowerCrash,
    /// SIGSTOP to a standby or a read replica, for some time.
    FollowerHang,
    /// A planned change of primary.
    Switchover,
    /// SIGKILL to the daemon, and some time later another one.
    DaemonCrash,
    /// SIGKILL to the proxy: its clients lose their connections.
    ProxyCrash,
    /// The disk of one node is full for some time, where it has one of its own.
    DiskFull,
}

impl Kind {
    pub const ALL: [Kind; 8] = [
        Kind::PrimaryCrash,
        Kind::PrimaryHang,
        Kind::FollowerCrash,
        Kind::FollowerHang,
        Kind::Switchover,
        Kind::DaemonCrash,
        Kind::ProxyCrash,
        Kind::DiskFull,
    ];

    /// As it is named on the command line and in a history.
    pub fn name(self) -> &'static str {
        match self {
            Kind::PrimaryCrash => "primary-crash",
            Kind::PrimaryHang => "primary-hang",
            Kind::FollowerCrash => "follower-crash",
            Kind::FollowerHang => "follower-hang",
            Kind::Switchover => "switchover",
            Kind::DaemonCrash => "daemon-crash",
            Kind::ProxyCrash => "proxy-crash",
            Kind::DiskFull => "disk-full",
        }
    }
}

/// Between two faults.
const PAUSE_MS: std::ops::Range<u64> = 200..3_000;
/// How long something hangs: sometimes it is noticed, sometimes not.
const HANG_MS: std::ops::Range<u64> = 50..4_000;
/// How long a disk is full: sometimes its node has to end for it, sometimes not.
const FULL_MS: std::ops::Range<u64> = 50..3_000;
/// Until another daemon is started.
const WITHOUT_DAEMON_MS: std::ops::Range<u64> = 0..1_500;
/// For everything to be whole again.
pub const RETURN_LIMIT: Duration = Duration::from_secs(120);

/// Breaks one thing after the other until `end`, often before the one before has healed. Everything goes on when it
/// returns, but need not be whole.
pub fn break_things(
    switchback: &Switchback,
    kinds: &[Kind],
    rng: &mut Rng,
    began: Instant,
    end: Instant,
) -> Vec<Fault> {
    let mut faults = Vec::new();
    loop {
        let pause = Duration::from_millis(rng.u64(PAUSE_MS));
        if kinds.is_empty() || Instant::now() + pause >= end {
            std::thread::sleep(end.saturating_duration_since(Instant::now()));
            return faults;
        }
        std::thread::sleep(pause);
        if rng.bool() {
            wait_until_whole(switchback);
        }
        let kind = kinds[rng.usize(..kinds.len())];
        let at = began.elapsed();
        if let Some(victim) = break_one(switchback, kind, rng) {
            faults.push(Fault { at, name: kind.name(), victim });
        }
    }
}

pub fn wait_until_whole(switchback: &Switchback) -> Status {
    let is_whole = |status: &Status| status.is_whole() && status.raw["operation"].is_null();
    switchback.wait_for("everything is ready, and every standby confirms commits", RETURN_LIMIT, is_whole)
}

/// Returns what it was done to; `None` where there was nothing to do it to.
fn break_one(switchback: &Switchback, kind: Kind, rng: &mut Rng) -> Option<String> {
    let status = switchback.try_status()?;
    let with_role = |roles: &[&str]| -> Vec<&Process> {
        let has_role = |process: &&Process| process.role.as_deref().is_some_and(|role| roles.contains(&role));
        status.processes.iter().filter(has_role).filter(|process| process.pid.is_some()).collect()
    };
    let primary = || with_role(&["primary"]).first().copied();
    let followers = with_role(&["standby", "read_replica"]);
    let follower = (!followers.is_empty()).then(|| followers[rng.usize(..followers.len())]);
    match kind {
        Kind::PrimaryCrash => crash(primary()?),
        Kind::FollowerCrash => crash(follower?),
        Kind::ProxyCrash => crash(status.of_kind("pgproxy").into_iter().find(|proxy| proxy.pid.is_some())?),
        Kind::PrimaryHang => hang(primary()?, rng),
        Kind::FollowerHang => hang(follower?, rng),
        Kind::Switchover => {
            // Refused while the cluster is not whole; that is no fault then.
            let said = switchback.cli(&["failover", "--json"]);
            (said.code == Some(0)).then(|| primary().map_or(String::new(), |process| process.name.clone()))
        }
        Kind::DaemonCrash => {
            switchback.kill_daemon();
            std::thread::sleep(Duration::from_millis(rng.u64(WITHOUT_DAEMON_MS)));
            switchback.start_daemon_again();
            Some("daemon".to_owned())
        }
        Kind::DiskFull => {
            let disk = switchback.app().disk()?;
            disk.fill();
            std::thread::sleep(Duration::from_millis(rng.u64(FULL_MS)));
            disk.free();
            Some(disk.path().display().to_string())
        }
    }
}

fn crash(process: &Process) -> Option<String> {
    process.try_crash().then(|| process.name.clone())
}

fn hang(process: &Process, rng: &mut Rng) -> Option<String> {
    if !process.try_hang_with_children() {
        return None;
    }
    std::thread::sleep(Duration::from_millis(rng.u64(HANG_MS)));
    // It may be gone by now: whoever waited for it has replaced it.
    process.go_on_with_children();
    Some(process.name.clone())
}
