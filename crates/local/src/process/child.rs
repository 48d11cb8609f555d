//! What happens between `fork` and `exec`, in the child.
//!
//! The daemon has threads, so after `fork` only async-signal-safe calls are allowed: no allocation, no locks,
//! nothing that may panic. Everything is prepared by the parent ([`Prepared`]); here are system calls in the
//! order in which they must come, and one pipe to say which of them failed.
//!
//! The order matters: the record first, so that a child is findable whatever happens to the daemon; then the
//! control group and everything that needs root; then the user; the program last.

use std::ffi::{CString, c_char, c_int};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};

use super::Priority;
use super::record::Draft;
use crate::user::Identity;

/// Where a child that could not become its program stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Step {
    Session = 1,
    Record = 2,
    /// Not the end: the child goes on without its control group.
    Cgroup = 3,
    Descriptors = 4,
    User = 5,
    Cwd = 6,
    Exec = 7,
}

impl Step {
    pub(super) fn from_byte(byte: u8) -> Option<Step> {
        use Step::*;
        [Session, Record, Cgroup, Descriptors, User, Cwd, Exec].into_iter().find(|step| *step as u8 == byte)
    }
}

/// A step, three bytes of nothing, and an error number: written at once, so never torn in a pipe.
pub(super) const REPORT_BYTES: usize = 8;

pub(super) struct Prepared {
    pub program: CString,
    /// Ends with a null pointer; points into strings that `_strings` keeps alive.
    pub argv: Vec<*const c_char>,
    pub envp: Vec<*const c_char>,
    pub _strings: Vec<CString>,
    pub cwd: CString,
    pub user: Option<Identity>,
    pub draft: Draft,
    /// Open `cgroup.procs` files.
    pub cgroup_doors: Vec<OwnedFd>,
    pub stdin: OwnedFd,
    pub stdout: OwnedFd,
    pub stderr: OwnedFd,
    pub inherited: Vec<(OwnedFd, RawFd)>,
    /// Room for copies of `inherited` out of each other's way; as long as that.
    pub parked: Vec<RawFd>,
    pub priority: Priority,
    pub oom_score_adj: Option<i32>,
    pub report: OwnedFd,
}

const SIGNALS: c_int = 64;
/// Of the kernel's signal set, which has one bit for each signal.
const SIGNAL_SET_BYTES: usize = 8;
const NICE_BUILD: c_int = 19;
/// "Best effort" class, lowest of its eight levels: never starved altogether, as the idle class may be.
const IOPRIO_BUILD: c_int = (2 << 13) | 7;
const IOPRIO_WHO_PROCESS: c_int = 1;
/// Somebody else's fork may hold a just written program open for writing until its own exec: a moment later
/// it is free.
const TEXT_BUSY_TRIES: u32 = 100;
const TEXT_BUSY_WAIT_NS: i64 = 2_000_000;

/// Becomes the program, or reports why not and exits.
///
/// # Safety
/// Only in the child of a `fork`, with all signals blocked, and with `prepared` made before it.
pub(super) unsafe fn run(prepared: &mut Prepared) -> ! {
    // SAFETY: every call below is async-signal-safe, gets pointers into `prepared` or the stack, and checks
    // what it is told.
    unsafe {
        reset_signals();
        let report = match move_report(prepared) {
            Ok(fd) => fd,
            Err(()) => libc::_exit(126),
        };
        // A session of its own: no terminal can stop it, or hang up on it.
        if libc::setsid() < 0 {
            fail(report, Step::Session);
        }
        if write_record(&prepared.draft).is_err() {
            fail(report, Step::Record);
        }
        for door in &prepared.cgroup_doors {
            if libc::write(door.as_raw_fd(), c"0".as_ptr().cast(), 1) != 1 {
                say(report, Step::Cgroup);
                break;
            }
        }
        lower_priority(prepared);
        raise_open_files();
        libc::umask(0o022);
        if place_descriptors(prepared).is_err() {
            fail(report, Step::Descriptors);
        }
        if let Some(user) = &prepared.user
            && become_user(user).is_err()
        {
            fail(report, Step::User);
        }
        if libc::chdir(prepared.cwd.as_ptr()) != 0 {
            fail(report, Step::Cwd);
        }
        let mut none: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&mut none);
        libc::sigprocmask(libc::SIG_SETMASK, &none, std::ptr::null_mut());
        for _ in 0..TEXT_BUSY_TRIES {
            libc::execve(prepared.program.as_ptr(), prepared.argv.as_ptr(), prepared.envp.as_ptr());
            if errno() != libc::ETXTBSY {
                break;
            }
            let wait = libc::timespec { tv_sec: 0, tv_nsec: TEXT_BUSY_WAIT_NS };
            libc::nanosleep(&wait, std::ptr::null_mut());
            set_errno(libc::ETXTBSY);
        }
        fail(report, Step::Exec)
    }
}

/// The daemon's handlers must not run here (they would tell the daemon of signals it never got), and what it
/// ignores, `exec` would let the program ignore too.
unsafe fn reset_signals() {
    // The system call itself: the library refuses to touch signals 32 and 33, which it keeps for threads and
    // which may be ignored all the same. All zero means the default action in the kernel's own structure, of
    // at most 32 bytes.
    let default = [0u64; 4];
    for signal in 1..=SIGNALS {
        // SAFETY: the pointer is to memory long enough; numbers that cannot be set are refused harmlessly.
        unsafe {
            libc::syscall(libc::SYS_rt_sigaction, signal, default.as_ptr(), 0usize, SIGNAL_SET_BYTES);
        }
    }
}

/// Above every number that `inherited` asks for, so that nothing lands on it.
unsafe fn move_report(prepared: &Prepared) -> Result<RawFd, ()> {
    let mut floor = 3;
    for (_, target) in &prepared.inherited {
        floor = if *target >= floor { *target + 1 } else { floor };
    }
    // SAFETY: a plain system call on a descriptor we own.
    let fd = unsafe { libc::fcntl(prepared.report.as_raw_fd(), libc::F_DUPFD_CLOEXEC, floor) };
    if fd < 0 { Err(()) } else { Ok(fd) }
}

unsafe fn place_descriptors(prepared: &mut Prepared) -> Result<(), ()> {
    // SAFETY: descriptors that we own, numbers that the caller checked.
    unsafe {
        // First everything out of the way: a target may be the number of another's source.
        let mut floor = 3;
        for (_, target) in &prepared.inherited {
            floor = if *target >= floor { *target + 1 } else { floor };
        }
        for ((source, _), parked) in prepared.inherited.iter().zip(prepared.parked.iter_mut()) {
            *parked = libc::fcntl(source.as_raw_fd(), libc::F_DUPFD_CLOEXEC, floor);
            if *parked < 0 {
                return Err(());
            }
        }
        let stdio = [(&prepared.stdin, 0), (&prepared.stdout, 1), (&prepared.stderr, 2)];
        for (source, target) in stdio {
            if libc::dup2(source.as_raw_fd(), target) < 0 {
                return Err(());
            }
        }
        close_from_three_on_exec();
        for ((_, target), parked) in prepared.inherited.iter().zip(prepared.parked.iter()) {
            // `dup2` leaves the copy open over `exec`.
            if libc::dup2(*parked, *target) < 0 {
                return Err(());
            }
        }
        Ok(())
    }
}

unsafe fn close_from_three_on_exec() {
    // SAFETY: plain system calls that only set flags.
    unsafe {
        let all = libc::syscall(libc::SYS_close_range, 3u32, u32::MAX, libc::CLOSE_RANGE_CLOEXEC);
        if all == 0 {
            return;
        }
        // Before Linux 5.11. What we open ourselves carries the flag anyway; this is for what libraries
        // forgot.
        for fd in 3..65_536 {
            libc::fcntl(fd, libc::F_SETFD, libc::FD_CLOEXEC);
        }
    }
}

unsafe fn become_user(user: &Identity) -> Result<(), ()> {
    // The system calls themselves: the library's versions would look for other threads to change, and there
    // are none. SAFETY: the groups are a slice with its length.
    unsafe {
        let ok = libc::syscall(libc::SYS_setgroups, user.groups.len(), user.groups.as_ptr()) == 0
            && libc::syscall(libc::SYS_setresgid, user.gid, user.gid, user.gid) == 0
            && libc::syscall(libc::SYS_setresuid, user.uid, user.uid, user.uid) == 0;
        if ok { Ok(()) } else { Err(()) }
    }
}

/// Each by best effort: a build at normal priority is better than no build.
unsafe fn lower_priority(prepared: &Prepared) {
    // SAFETY: plain system calls on ourselves.
    unsafe {
        if prepared.priority == Priority::Build {
            libc::setpriority(libc::PRIO_PROCESS, 0, NICE_BUILD);
            libc::syscall(libc::SYS_ioprio_set, IOPRIO_WHO_PROCESS, 0, IOPRIO_BUILD);
            let parameter: libc::sched_param = std::mem::zeroed();
            libc::sched_setscheduler(0, libc::SCHED_BATCH, &parameter);
            // Where the scheduler groups by session, niceness counts only within one: the session itself must
            // yield.
            write_small(c"/proc/self/autogroup".as_ptr(), b"19");
        }
        if let Some(score) = prepared.oom_score_adj {
            let mut text = Text::<16>::new();
            if score < 0 {
                text.push(b"-");
            }
            text.push_number(u64::from(score.unsigned_abs()));
            write_small(c"/proc/self/oom_score_adj".as_ptr(), text.bytes());
        }
    }
}

unsafe fn raise_open_files() {
    // SAFETY: the struct is on the stack and filled in before it is used.
    unsafe {
        let mut limit: libc::rlimit = std::mem::zeroed();
        if libc::getrlimit(libc::RLIMIT_NOFILE, &mut limit) == 0 && limit.rlim_cur < limit.rlim_max {
            limit.rlim_cur = limit.rlim_max;
            libc::setrlimit(libc::RLIMIT_NOFILE, &limit);
        }
    }
}

/// Whole or not at all: written beside, then renamed.
unsafe fn write_record(draft: &Draft) -> Result<(), ()> {
    // SAFETY: paths are terminated strings prepared by the parent; buffers carry their lengths.
    unsafe {
        let pid = u64::from(libc::getpid().unsigned_abs());
        let start_time = own_start_time().ok_or(())?;
        let mut text = Text::<1024>::new();
        for (piece, number) in draft.pieces.iter().zip([Some(pid), Some(pid), Some(start_time), None]) {
            text.push(piece);
            if let Some(number) = number {
                text.push_number(number);
            }
        }
        let flags = libc::O_WRONLY | libc::O_CREAT | libc::O_TRUNC | libc::O_CLOEXEC;
        let fd = libc::open(draft.temporary.as_ptr(), flags, 0o644);
        if fd >= 0 && write_whole(fd, text.bytes()) {
            let renamed = libc::rename(draft.temporary.as_ptr(), draft.path.as_ptr()) == 0;
            return if renamed { Ok(()) } else { Err(()) };
        }
        libc::unlink(draft.temporary.as_ptr());
        // The disk is full. What was started before under this name has left a record, and its block takes this one: an
        // app that crashes is then still started again.
        let fd = libc::open(draft.path.as_ptr(), libc::O_WRONLY | libc::O_CLOEXEC);
        if fd >= 0 && write_whole(fd, text.bytes()) { Ok(()) } else { Err(()) }
    }
}

/// Writes, cuts off what was there beyond, and closes.
///
/// # Safety
/// `fd` is open and nobody else's.
unsafe fn write_whole(fd: c_int, bytes: &[u8]) -> bool {
    // SAFETY: the buffer carries its length; the descriptor is the caller's to close.
    unsafe {
        let written = libc::write(fd, bytes.as_ptr().cast(), bytes.len());
        let whole =
            written.unsigned_abs() == bytes.len() && libc::ftruncate(fd, bytes.len() as libc::off_t) == 0;
        libc::close(fd) == 0 && whole
    }
}

/// Field 22 of our own `/proc/self/stat`, read without a library.
unsafe fn own_start_time() -> Option<u64> {
    let mut buffer = [0u8; 1024];
    // SAFETY: the path is terminated, the buffer carries its length.
    let length = unsafe {
        let fd = libc::open(c"/proc/self/stat".as_ptr(), libc::O_RDONLY | libc::O_CLOEXEC);
        if fd < 0 {
            return None;
        }
        let length = libc::read(fd, buffer.as_mut_ptr().cast(), buffer.len());
        libc::close(fd);
        usize::try_from(length).ok()?
    };
    let line = buffer.get(..length)?;
    let close = line.iter().rposition(|b| *b == b')')?;
    let after = line.get(close + 2..)?;
    // The first field after the brackets is the third.
    let field = after.split(|b| *b == b' ').nth(22 - 3)?;
    let mut number = 0u64;
    for digit in field {
        number = number.checked_mul(10)?.checked_add(u64::from(digit.wrapping_sub(b'0')))?;
    }
    Some(number)
}

unsafe fn write_small(path: *const c_char, bytes: &[u8]) {
    // SAFETY: the caller's path is terminated, the buffer carries its length.
    unsafe {
        let fd = libc::open(path, libc::O_WRONLY | libc::O_CLOEXEC);
        if fd >= 0 {
            libc::write(fd, bytes.as_ptr().cast(), bytes.len());
            libc::close(fd);
        }
    }
}

unsafe fn say(report: RawFd, step: Step) {
    let mut message = [0u8; REPORT_BYTES];
    message[0] = step as u8;
    message[4..].copy_from_slice(&errno().to_ne_bytes());
    // SAFETY: the buffer carries its length. A parent that is gone needs no report.
    unsafe {
        libc::write(report, message.as_ptr().cast(), message.len());
    }
}

unsafe fn fail(report: RawFd, step: Step) -> ! {
    // SAFETY: as `say`; `_exit` runs nothing of the parent's.
    unsafe {
        say(report, step);
        libc::_exit(126)
    }
}

fn errno() -> c_int {
    // SAFETY: always points at this thread's own number.
    unsafe { *libc::__errno_location() }
}

fn set_errno(number: c_int) {
    // SAFETY: always points at this thread's own number.
    unsafe { *libc::__errno_location() = number }
}

/// Text of at most `N` bytes on the stack. What does not fit is left out; the sizes above leave room.
struct Text<const N: usize> {
    bytes: [u8; N],
    length: usize,
}

impl<const N: usize> Text<N> {
    fn new() -> Self {
        Text { bytes: [0; N], length: 0 }
    }

    fn push(&mut self, more: &[u8]) {
        if let Some(room) = self.bytes.get_mut(self.length..self.length + more.len()) {
            room.copy_from_slice(more);
            self.length += more.len();
        }
    }

    fn push_number(&mut self, number: u64) {
        let mut digits = [0u8; 20];
        let (mut at, mut rest) = (digits.len(), number);
        loop {
            at -= 1;
            digits[at] = b'0' + (rest % 10) as u8;
            rest /= 10;
            if rest == 0 {
                break;
            }
        }
        self.push(&digits[at..]);
    }

    fn bytes(&self) -> &[u8] {
        &self.bytes[..self.length]
    }
}
