//! Starting a process: the parent's half.

use std::ffi::{CString, OsStr, OsString};
use std::fs::File;
use std::io::{self, PipeReader, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use jiff::Timestamp;
use model::Size;
use rustix::process::{Pid, PidfdFlags, WaitOptions, pidfd_open, waitpid};

use super::child::{self, Prepared, REPORT_BYTES, Step};
use super::handle::Limits;
use super::record::{Draft, Record, boot_id};
use super::stat::Stat;
use super::{Priority, Process, Processes, SpawnError, Spec, program, record_path};
use crate::cgroup::{Group, Weight};

/// Builds give way when memory runs out: half way to "killed first".
const OOM_SCORE_BUILD: i32 = 500;
/// Highest descriptor number that may be asked for; beyond lie the limits of open files of small systems.
const MAX_INHERITED_FD: i32 = 200;

impl Processes {
    /// Starts a process. Returns when the program runs (`exec` succeeded), which takes a few milliseconds and
    /// blocks.
    ///
    /// The caller awaits [`Process::exited`], which also reaps it.
    ///
    /// Output files are made when missing, and belong to the process's user, who may reopen them as
    /// `/dev/stdout`.
    ///
    /// # Errors
    /// See [`SpawnError`]. Then nothing runs, and no record is left. A shell finds out by itself
    /// that a program of a longer line is missing: see [`super::Exit::explain`].
    pub fn spawn(&self, spec: Spec) -> Result<Process, SpawnError> {
        check_name(&spec.name)?;
        // A second one would overwrite the record of the first, which nobody could find any more.
        if let Some(running) = self.find(&spec.name) {
            return Err(SpawnError::AlreadyRunning { name: spec.name, pid: running.pid() });
        }
        if !spec.cwd.is_dir() {
            return Err(SpawnError::CwdMissing { cwd: spec.cwd });
        }
        let env = self.base_env.with(spec.user.as_ref(), &spec.env);
        let (program, arguments) =
            program::command_line(&spec, env.get(OsStr::new("PATH")).map(OsString::as_os_str))?;
        let label = program::label(&spec.command);
        let (group, doors, limits) = self.prepare_group(&spec);
        // The group may be left from one that ran before.
        let oom_kills = group.as_ref().and_then(Group::oom_kills).unwrap_or_default();
        let spawned_at = Timestamp::now();
        let path = record_path(&self.run_dir, &spec.name);
        let draft = Draft::new(&path, &spec.name, &boot_id(), spawned_at, spec.stop_signal)
            .ok_or(SpawnError::Nul { what: "the run folder's path" })?;
        let (mut reports, report) = pipe()?;

        let mut strings = Vec::new();
        let mut argv = Vec::new();
        for argument in &arguments {
            strings.push(c_string(argument, "the command")?);
        }
        argv.extend(strings.iter().map(|s| s.as_ptr()));
        argv.push(std::ptr::null());
        let mut env_strings = Vec::new();
        for (name, value) in &env {
            let pair = [name.as_bytes(), b"=", value.as_bytes()].concat();
            env_strings.push(c_string(OsStr::from_bytes(&pair), "the environment")?);
        }
        let mut envp: Vec<_> = env_strings.iter().map(|s| s.as_ptr()).collect();
        envp.push(std::ptr::null());
        strings.append(&mut env_strings);

        let prepared = Prepared {
            program: c_string(program.as_os_str(), "the command")?,
            argv,
            envp,
            _strings: strings,
            cwd: c_string(spec.cwd.as_os_str(), "the folder")?,
            draft,
            cgroup_doors: doors,
            stdin: open_null()?,
            stdout: open_output(&spec.output.stdout, &spec)?,
            stderr: open_output(&spec.output.stderr, &spec)?,
            parked: vec![-1; spec.inherited_fds.len()],
            priority: spec.priority,
            oom_score_adj: spec
                .oom_score_adj
                .or((spec.priority == Priority::Build).then_some(OOM_SCORE_BUILD)),
            report,
            user: changed_user(&spec),
            inherited: checked_fds(spec.inherited_fds)?,
        };
        let pid = fork(prepared).map_err(|source| SpawnError::NoRoom { source })?;

        let mut joined = true;
        let failed = read_reports(&mut reports, &mut joined);
        if let Some((step, source)) = failed {
            let _ = waitpid(Some(pid), WaitOptions::empty());
            let _ = std::fs::remove_file(&path);
            if let Some(group) = group {
                let _ = group.remove();
            }
            return Err(match step {
                Step::Cwd => SpawnError::Cwd { cwd: spec.cwd, source },
                Step::User => match spec.user {
                    Some(user) => SpawnError::CannotBecome { user, source },
                    None => SpawnError::System { step: "user", source },
                },
                Step::Record => SpawnError::Record { path, source },
                Step::Exec => program::exec_error(label, source, spec.cwd),
                Step::Session => SpawnError::System { step: "session", source },
                Step::Descriptors => SpawnError::System { step: "descriptors", source },
                Step::Cgroup => SpawnError::System { step: "control group", source },
            });
        }

        // Ours and not waited for: the pid cannot have been given to anyone else.
        let raw_pid = pid.as_raw_nonzero().get().unsigned_abs();
        let pidfd = pidfd_open(pid, PidfdFlags::empty()).map_err(|error| {
            let _ = rustix::process::kill_process_group(pid, rustix::process::Signal::KILL);
            let _ = waitpid(Some(pid), WaitOptions::empty());
            SpawnError::System { step: "pidfd (needs Linux 5.3)", source: error.into() }
        })?;
        let record = Record {
            name: spec.name,
            pid: raw_pid,
            pgid: raw_pid,
            start_time_ticks: Stat::of(raw_pid).map_or(0, |stat| stat.start_time_ticks),
            boot_id: boot_id(),
            spawned_at,
            stop_signal: spec.stop_signal,
        };
        let (group, limits) = if joined {
            (group, limits)
        } else {
            (
                None,
                Limits::Unlimited("the kernel refused to move the process into its control group".to_owned()),
            )
        };
        Ok(Process::new(record, pidfd, group, limits, oom_kills))
    }

    /// The group to start in, open for the child to enter. Limits that cannot be set leave the group: it
    /// still tells who is there.
    fn prepare_group(&self, spec: &Spec) -> (Option<Group>, Vec<OwnedFd>, Limits) {
        let opened = self.cgroups.create(&spec.name, Size::UNLIMITED).and_then(|group| {
            let doors = group.doors()?;
            Ok((group, doors))
        });
        let (group, doors) = match opened {
            Ok(opened) => opened,
            Err(error) => return (None, Vec::new(), Limits::Unlimited(with_cause(&error))),
        };
        let weight = match spec.priority {
            Priority::Normal => Weight::Normal,
            Priority::Build => Weight::Low,
        };
        let limits = match group.apply(spec.size).and_then(|()| group.set_weight(weight)) {
            Ok(()) => Limits::Enforced,
            Err(error) => Limits::Unlimited(with_cause(&error)),
        };
        (Some(group), doors, limits)
    }
}

fn with_cause(error: &dyn std::error::Error) -> String {
    match error.source() {
        Some(cause) => format!("{error}: {cause}"),
        None => error.to_string(),
    }
}

/// Forks with all signals blocked, so that no handler of the daemon runs in the child.
fn fork(mut prepared: Prepared) -> io::Result<Pid> {
    // SAFETY: the child only calls `child::run`, which is made for that place; signal sets are initialised
    // before use.
    unsafe {
        let mut all: libc::sigset_t = std::mem::zeroed();
        let mut before: libc::sigset_t = std::mem::zeroed();
        libc::sigfillset(&mut all);
        libc::pthread_sigmask(libc::SIG_SETMASK, &all, &mut before);
        let pid = libc::fork();
        if pid == 0 {
            child::run(&mut prepared);
        }
        let error = io::Error::last_os_error();
        libc::pthread_sigmask(libc::SIG_SETMASK, &before, std::ptr::null_mut());
        // With it goes our copy of the report pipe, so that its end can be read.
        drop(prepared);
        Pid::from_raw(pid).filter(|_| pid > 0).ok_or(error)
    }
}

/// Reads until the child's end of the pipe closes, by `exec` or by its death.
fn read_reports(reports: &mut PipeReader, joined: &mut bool) -> Option<(Step, io::Error)> {
    let mut report = [0u8; REPORT_BYTES];
    while reports.read_exact(&mut report).is_ok() {
        let [step, _, _, _, errno @ ..] = report;
        let error = io::Error::from_raw_os_error(i32::from_ne_bytes(errno));
        match Step::from_byte(step) {
            Some(Step::Cgroup) => *joined = false,
            Some(step) => return Some((step, error)),
            None => {}
        }
    }
    None
}

fn check_name(name: &str) -> Result<(), SpawnError> {
    let allowed = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'.' || b == b'-';
    let plain = !name.starts_with('.') && (1..=80).contains(&name.len()) && name.bytes().all(allowed);
    if plain { Ok(()) } else { Err(SpawnError::BadName { name: name.to_owned() }) }
}

/// To become who we are already needs no right, and no call.
fn changed_user(spec: &Spec) -> Option<crate::user::Identity> {
    let already = |user: &&crate::user::Identity| {
        user.uid == rustix::process::geteuid().as_raw() && user.gid == rustix::process::getegid().as_raw()
    };
    spec.user.as_ref().filter(|user| !already(user)).cloned()
}

fn checked_fds(fds: Vec<(OwnedFd, i32)>) -> Result<Vec<(OwnedFd, i32)>, SpawnError> {
    let mut numbers: Vec<i32> = fds.iter().map(|(_, number)| *number).collect();
    numbers.sort_unstable();
    numbers.dedup();
    if numbers.len() == fds.len() && numbers.iter().all(|number| (3..=MAX_INHERITED_FD).contains(number)) {
        return Ok(fds);
    }
    let source =
        io::Error::new(io::ErrorKind::InvalidInput, "descriptor numbers must differ and be 3 to 200");
    Err(SpawnError::System { step: "descriptors", source })
}

fn pipe() -> Result<(PipeReader, OwnedFd), SpawnError> {
    // Both ends close on `exec`, which is what tells the parent.
    let (read, write) = io::pipe().map_err(|source| SpawnError::System { step: "pipe", source })?;
    Ok((read, write.into()))
}

fn open_null() -> Result<OwnedFd, SpawnError> {
    let null = File::open("/dev/null").map_err(|source| SpawnError::System { step: "/dev/null", source })?;
    above_stdio(null).map_err(|source| SpawnError::System { step: "/dev/null", source })
}

fn open_output(path: &Path, spec: &Spec) -> Result<OwnedFd, SpawnError> {
    let failed = |source| SpawnError::Output { path: path.to_owned(), source };
    let file = File::options().append(true).create(true).mode(0o640).open(path).map_err(failed)?;
    if let Some(user) = changed_user(spec) {
        // An app may reopen its output as /dev/stdout, which asks for the right to the file. When the file
        // cannot be given away, neither can the user be become, and that is the error to report.
        let _ = std::os::unix::fs::fchown(file.as_fd(), Some(user.uid), Some(user.gid));
    }
    above_stdio(file).map_err(failed)
}

/// A daemon that was itself started without stdio has files at 0, 1 and 2, where copying them into place
/// would fail.
fn above_stdio(file: File) -> io::Result<OwnedFd> {
    Ok(rustix::io::fcntl_dupfd_cloexec(&file, 3)?)
}

fn c_string(text: &OsStr, what: &'static str) -> Result<CString, SpawnError> {
    CString::new(text.as_bytes()).map_err(|_| SpawnError::Nul { what })
}
